//! How requests are read and answered.

use crate::calls::AskError;
use crate::hosted::HostedError;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, Incoming};
use serde_json::json;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use synod_node::ClientError;
use tokio::sync::mpsc;

/// A request's whole body.
pub(super) async fn body(mut body: Incoming, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| ApiError::malformed("the request ended early"))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > bytes_max {
                return Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    format!("send at most {bytes_max} bytes"),
                ));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}

pub(super) fn text(status: StatusCode, text: &str) -> Response<Content> {
    respond(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

pub(super) fn json_response(status: StatusCode, value: &serde_json::Value) -> Response<Content> {
    respond(status, "application/json", value.to_string())
}

pub(super) fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Content> {
    let mut response = Response::new(Content::Whole(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Why a request of the API is not carried out.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    /// For programs: never changed once it was released.
    code: &'static str,
    /// For people: what was wrong, and what to do.
    message: String,
    /// What the status does not mean without.
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), header: None }
    }

    /// The same with a header.
    pub(super) fn with_header(self, name: HeaderName, value: HeaderValue) -> ApiError {
        ApiError { header: Some((name, value)), ..self }
    }

    /// What cannot be read.
    pub(crate) fn malformed(why: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "malformed", why)
    }

    /// What programs see of it: its status and its code.
    pub(super) fn outcome(&self) -> (StatusCode, &'static str) {
        (self.status, self.code)
    }

    pub(super) fn response(&self) -> Response<Content> {
        let value = json!({"error": {"code": self.code, "message": self.message}});
        let mut response = json_response(self.status, &value);
        if let Some((name, value)) = &self.header {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> ApiError {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            AskError::Stopped => ApiError::new(unavailable, "stopping", "this member stops: ask another one"),
            AskError::Node(ClientError::NoLeader) => ApiError::new(
                unavailable,
                "no-leader",
                "no leader is known, so nothing was done: try again, or ask another member",
            ),
            AskError::Node(ClientError::Busy) => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                "too many requests wait, so nothing was done: try again later",
            ),
            AskError::Node(ClientError::Storage) => ApiError::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "the disk is full or damaged, so nothing was done: make room",
            ),
            AskError::Node(ClientError::TooLarge) => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "larger than one entry may be: send less at a time",
            ),
            AskError::Node(ClientError::Timeout) => ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "unknown-outcome",
                "no answer came in time: a change may or may not take effect. Read before you repeat it",
            ),
            AskError::Node(error @ (ClientError::Unsupported | ClientError::Change(_))) => {
                ApiError::new(StatusCode::CONFLICT, "refused", format!("it cannot be done: {error:?}"))
            }
        }
    }
}

impl From<HostedError> for ApiError {
    fn from(error: HostedError) -> ApiError {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            HostedError::NotLeader => ApiError::new(
                unavailable,
                "no-leader",
                "this member does not lead any more, so nothing was begun: try again",
            ),
            HostedError::Unavailable => ApiError::new(
                unavailable,
                "not-started",
                "the coordinator of transactions has not begun here in time, so nothing was done: try again",
            ),
            HostedError::Refused { code, why } => ApiError::new(StatusCode::BAD_REQUEST, code, why),
            HostedError::TooLarge(why) => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", why),
            HostedError::Unknown(name) => ApiError::new(
                StatusCode::NOT_FOUND,
                "participant-unknown",
                format!(
                    "`{name}` is no keyspace and no registered participant: create it at /v1/keyspaces, or register it \
                     at /v1/participants"
                ),
            ),
            HostedError::Busy => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                "too many transactions are under way, so nothing was done: try again later",
            ),
            HostedError::UnknownOutcome => ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "unknown-outcome",
                "no outcome is known in time: it may have happened, all of it, or not at all. Read before you repeat it",
            ),
            HostedError::Stopping => {
                ApiError::new(unavailable, "stopping", "this member stops: ask another one what became of it")
            }
        }
    }
}

/// A response's body.
pub(super) enum Content {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Events(events) => {
                events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Content::Whole(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Content::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Content::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}
