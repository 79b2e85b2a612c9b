//! The codes by which programs know why a request was refused. What is released is never changed.

/// Every code, and what it means; the document lists them.
pub(super) const CODES: &[(&str, &str)] = &[
    ("address", "That is no address of a participant."),
    ("after", "`after` is not what an answer said as `next`."),
    ("apart", "The participants do not share a log, and one entry was asked for."),
    ("behind", "The session has seen more than this member has, and it did not arrive in time."),
    ("busy", "Too much waits; nothing was done."),
    ("cannot-take-part", "The participant cannot do what is asked of one, or cannot be reached."),
    ("clock-behind", "This member's clock is too far behind what others have written."),
    ("consistency-too-strong", "The keyspace does not give so strong a level."),
    ("consistency-unknown", "There is no such level."),
    ("context", "`context` is not what a read of the siblings said."),
    ("damaged", "This member's disk is damaged."),
    ("disk-full", "There is no room on this member's disk; nothing was done."),
    ("elements", "A batch changes one element of a set at the most."),
    ("empty", "There is nothing to do."),
    ("force", "`force` is true or false."),
    ("if-not-here", "Conditions can be decided on keyspaces of the log only."),
    ("joining", "This member is catching up and takes no writes yet."),
    ("key", "That is no key of a keyspace on the log."),
    ("key-empty", "A key has at least one byte."),
    ("keyspace-exists", "There is a keyspace of this name, with another model."),
    ("keyspace-holds-keys", "A keyspace that holds keys is dropped with force only."),
    ("keyspace-in-transaction", "The keyspace takes part in a transaction that is not over."),
    ("keyspace-unknown", "There is no such keyspace."),
    ("kind-not-here", "The keyspace does not hold this kind, or the kind cannot do this."),
    ("kind-unknown", "There is no such kind."),
    ("limit", "The limit is not within its bounds."),
    ("locked", "A transaction holds the lock of the key; nothing was done."),
    ("malformed", "The request cannot be read."),
    ("method-not-allowed", "The path is there, for other methods."),
    ("name", "That is no name."),
    ("name-taken", "A participant of another sort has this name."),
    ("no-leader", "No leader is known; nothing was done."),
    ("no-leader-address", "Another member leads, and it is not known where clients reach it."),
    ("no-randomness", "The operating system gave no random numbers."),
    ("no-sessions", "Eventual keyspaces have no sessions."),
    ("no-such-path", "There is nothing at this path."),
    ("not-in-doubt", "It is not for people to end: the transaction is not in doubt at this participant."),
    ("not-leader", "Another member leads; the header Location says where."),
    ("not-on-the-log", "The keyspace is not on the cluster's log."),
    ("not-paused", "The step does not wait for a person."),
    ("not-started", "The keyspace, or who serves it, has not started at this member yet."),
    ("operation", "That is no operation on a keyspace."),
    ("other-cluster", "The messages are for another cluster, or for somebody else in it."),
    ("parameter-unknown", "The query has a parameter that is not there."),
    ("participant-in-transaction", "The participant takes part in a transaction that is not over."),
    ("participant-unknown", "There is no such participant."),
    ("plan", "The saga cannot be carried out as planned."),
    ("precondition", "The value is not what `if` says; nothing was written."),
    ("refused", "It cannot be done."),
    ("saga-unknown", "There is no such saga or step, or it is forgotten."),
    ("session-forged", "The session token was not sealed here, or was altered."),
    ("session-malformed", "That is no session token."),
    ("session-other-cluster", "The session token is of another cluster."),
    ("session-other-keyspace", "The session token is of another keyspace."),
    ("session-too-long", "The session token is longer than any is."),
    ("stopping", "This member stops."),
    ("storage", "This member cannot read its state."),
    ("timeout", "The time that a transaction may take is not within its bounds."),
    ("too-large", "More than is taken at a time."),
    ("too-late", "The saga cannot be cancelled any more."),
    ("too-many", "There are as many as there may be."),
    ("transaction-unknown", "No transaction of this name is open."),
    ("twice", "One key, or one participant, is named twice in one request."),
    ("unknown-outcome", "No answer came in time: it may have been done or not."),
    ("wrong-work", "The participant does not do work of this kind."),
];

#[cfg(test)]
mod tests {
    use super::CODES;
    use std::path::Path;

    /// What stands in the place of a code in a source file of the API: the first string behind a status.
    fn used(source: &str) -> Vec<String> {
        let shipped = source.split("#[cfg(test)]").next().unwrap_or_default();
        let behind = |mark: &str| -> Vec<String> {
            let places = shipped.split(mark).skip(1);
            let code = |text: &str| {
                let text = text.trim_start().strip_prefix('"')?;
                let code = &text[..text.find('"')?];
                (!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
                    .then(|| code.to_owned())
            };
            places.filter_map(code).collect()
        };
        let statuses = [
            "BAD_REQUEST,",
            "NOT_FOUND,",
            "CONFLICT,",
            "PAYLOAD_TOO_LARGE,",
            "SERVICE_UNAVAILABLE,",
            "unavailable,",
        ];
        let more = [
            "TOO_MANY_REQUESTS,",
            "GATEWAY_TIMEOUT,",
            "INSUFFICIENT_STORAGE,",
            "bad_request(",
            "unavailable(",
        ];
        let last = ["INTERNAL_SERVER_ERROR,", "METHOD_NOT_ALLOWED,", "TEMPORARY_REDIRECT,"];
        statuses.iter().chain(&more).chain(&last).flat_map(|mark| behind(mark)).collect()
    }

    fn visit(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a source folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => visit(&path, found),
                false => found.extend(used(&std::fs::read_to_string(&path).expect("a source file"))),
            }
        }
    }

    #[test]
    fn every_code_is_listed_once_and_in_order() {
        assert!(CODES.is_sorted_by(|(one, _), (next, _)| one < next));
        let mut found = Vec::new();
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http"), &mut found);
        assert!(found.len() > 40, "only {} codes were found in the sources", found.len());
        for code in found {
            assert!(CODES.iter().any(|(known, _)| *known == code), "`{code}` is not in the list of codes");
        }
    }
}
