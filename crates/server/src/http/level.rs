//! Which level of consistency a request asks for, and what its session has seen.

use super::Call;
use super::reply::{ApiError, Content, json_response};
use crate::member::Member;
use crate::session::{NEW, SessionError};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;
use synod_node::spaces::{Model, Space};
use synod_protocols::log::{Index, ReplicatedLog};

/// The header that carries a session's token, both ways.
pub(super) const SESSION: HeaderName = HeaderName::from_static("synod-session");
/// The header that may say the level instead of the query.
pub(super) const CONSISTENCY: HeaderName = HeaderName::from_static("synod-consistency");

/// The level that a request asks for: its keyspace's own unless it says another one.
pub(super) fn asked(call: &Call, space: &Space) -> Result<Model, ApiError> {
    let (query, header) = (call.query("consistency"), call.header(CONSISTENCY.as_str()));
    if let (Some(query), Some(header)) = (query, header)
        && query != header
    {
        return Err(ApiError::malformed(format!(
            "the query asks for `{query}` and the header Synod-Consistency for `{header}`: say it once"
        )));
    }
    let Some(name) = query.or(header) else { return Ok(space.model) };
    let level: Model = name.parse().map_err(|why: String| bad_request("consistency-unknown", why))?;
    if !space.model.is_at_least(level) {
        let (keyspace, model) = (&space.name, space.model);
        return Err(bad_request(
            "consistency-too-strong",
            format!(
                "the keyspace `{keyspace}` is {model} and cannot give {level} reads: ask for {model} or a weaker level, or use a keyspace with that model"
            ),
        ));
    }
    Ok(level)
}

pub(super) fn bad_request(code: &'static str, why: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, why)
}

/// The token that a request shows, if it shows one. `new` is as good as none: every answer has a token.
pub(super) fn shown(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(SESSION) else { return Ok(None) };
    let malformed = SessionError::Token(synod_protocols::weak::TokenError::Malformed);
    let text = value.to_str().map_err(|_| ApiError::from(malformed))?;
    Ok(Some(text).filter(|text| *text != NEW))
}

/// What the session of a request to a keyspace on the log has seen; nothing if it begins with this request.
pub(super) fn seen_on_log<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    call: &Call,
    space: &Space,
) -> Result<Index, ApiError> {
    let Some(text) = shown(&call.headers)? else { return Ok(Index::ZERO) };
    Ok(member.seal_of_shown()?.open_log_token(space.id, text)?)
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> ApiError {
        let status = match &error {
            SessionError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            SessionError::Token(_) => StatusCode::BAD_REQUEST,
            SessionError::Behind { .. } => StatusCode::SERVICE_UNAVAILABLE,
            SessionError::Busy => StatusCode::TOO_MANY_REQUESTS,
        };
        ApiError::new(status, error.code(), error.to_string())
    }
}

/// An answer with the session's next token, in its header and beside the rest.
pub(super) fn in_session(mut answer: Value, token: Option<String>) -> Response<Content> {
    let header = token.as_ref().and_then(|token| HeaderValue::from_str(token).ok());
    if let Some(token) = token {
        answer["session"] = token.into();
    }
    let mut response = json_response(StatusCode::OK, &answer);
    if let Some(header) = header {
        response.headers_mut().insert(SESSION, header);
    }
    response
}
