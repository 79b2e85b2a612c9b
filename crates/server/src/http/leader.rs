//! Requests that only the leader can answer, at members that do not lead.

use super::Call;
use super::reply::ApiError;
use crate::member::Member;
use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use synod_protocols::log::{ReplicatedLog, Role};

/// Goes on at the leader only. At another member the answer is where the leader is, which clients follow
/// (`curl --location`), or that nobody leads.
///
/// # Errors
/// The answer, if this member does not lead.
pub(super) fn redirect<P: ReplicatedLog + 'static>(member: &Member<P>, call: &Call) -> Result<(), ApiError> {
    let core = member.core.borrow();
    let status = core.node.status().log;
    if status.role == Role::Leader {
        return Ok(());
    }
    let unavailable = |code, why: String| Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, why));
    let Some(leader) = status.leader.filter(|leader| *leader != member.id) else {
        return unavailable(
            "no-leader",
            "no leader is known, so nothing was done: try again, or ask another member".into(),
        );
    };
    let members = member.member_infos(&core, &core.node.process().members());
    let address = members.into_iter().find(|info| info.id == leader).and_then(|info| info.clients);
    let location = address.and_then(|at| HeaderValue::from_str(&format!("http://{at}{}", call.target)).ok());
    let Some(location) = location else {
        let why = format!(
            "{leader} leads, and this member does not know where clients reach it: ask {leader} itself"
        );
        return unavailable("no-leader-address", why);
    };
    let why = format!("{leader} leads: send the same request there (curl --location does)");
    Err(ApiError::new(StatusCode::TEMPORARY_REDIRECT, "not-leader", why).with_header(LOCATION, location))
}
