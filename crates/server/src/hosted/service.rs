//! A keyspace on the log as a service of sagas.
//!
//! A step's operations and a *mark* that it acted are one entry of the log, and so is what undoes it with the mark that
//! it is undone. The marks are keys of the keyspace that clients do not see, by saga and step. So the three traps hold:
//! a duplicate finds the mark and the first answer; a compensation without its action leaves its mark and does nothing
//! else; an action after its compensation finds that mark and is refused. Marks of sagas below the orchestrator's floor
//! are removed by later steps, and the floor is kept with them: below it nothing begins.
//!
//! The work is the API's JSON, and outputs that it names ([`outputs`](crate::outputs)) are filled in here.

use super::clients::Request;
use super::host::Happened;
use super::plan::{Planned, Route, check_key};
use super::{Ended, HostedError};
use crate::http::{ApiError, read_ops};
use crate::member::Member;
use crate::outputs;
use bytes::Bytes;
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::{Space, SpaceId};
use synod_protocols::commit::{Decision, KeyOp, Refusal};
use synod_protocols::log::ReplicatedLog;
use synod_protocols::saga::{Failure, Given, Message, SagaId};
use synod_protocols::{NodeId, Wire};
use tokio::sync::oneshot;

/// The floor of this keyspace.
const FLOOR: &str = "\0saga-floor";
/// What marks begin with.
const MARKS: &str = "\0saga/";
/// Marks that one step removes at the most.
const REMOVED_MAX: usize = 64;
/// How long one step may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a step is tried again at once, because another one has raised the floor meanwhile.
const TRIES: usize = 8;

/// Handles one message, and returns the answer: none where it is not known what became of it.
pub(super) async fn serve<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    space: &Space,
    message: Message,
) -> Option<Message> {
    match message {
        Message::Act { floor, saga, step, work, given, is_final } => {
            let service = Service { member, space, floor, saga, step: &step };
            let answer = service.act(&work, &given, is_final).await?;
            Some(match answer {
                Ok(output) => Message::Acted { saga, step, output },
                Err(failure) => Message::Failed { saga, step, is_compensation: false, failure },
            })
        }
        Message::Compensate { floor, saga, step, work, given } => {
            let service = Service { member, space, floor, saga, step: &step };
            let answer = service.compensate(&work, given).await?;
            Some(match answer {
                Ok(()) => Message::Compensated { saga, step },
                Err(failure) => Message::Failed { saga, step, is_compensation: true, failure },
            })
        }
        _ => None,
    }
}

/// One step at one keyspace.
struct Service<'a, P: ReplicatedLog + 'static> {
    member: &'a Rc<Member<P>>,
    space: &'a Space,
    floor: SagaId,
    saga: SagaId,
    step: &'a str,
}

/// What marks say of a step.
struct Marks {
    floor: Option<Bytes>,
    acted: Option<Bytes>,
    refused: Option<Bytes>,
    undone: Option<Bytes>,
}

/// How an attempt ended.
enum Tried {
    Done,
    /// With the reason, for people.
    Refused(String),
    /// Somebody else was faster, or a lock is held.
    InTheWay,
    Unknown,
}

impl<P: ReplicatedLog + 'static> Service<'_, P> {
    async fn act(&self, work: &Bytes, given: &[Given], is_final: bool) -> Option<Result<Bytes, Failure>> {
        let refused = |why: String| Some(Err(Failure::Refused { why }));
        let ops = operations(work, given);
        for _ in 0..TRIES {
            let marks = self.marks()?;
            if let Some(acted) = marks.acted {
                return Some(Ok(output(&acted)));
            }
            if let Some(why) = marks.refused {
                return refused(String::from_utf8_lossy(&why).into_owned());
            }
            if marks.undone.is_some() {
                return refused("it was compensated before".into());
            }
            let tried = match &ops {
                Ok(ops) => {
                    let mut all = self.guarded(&marks, &["refused", "undone", "acted"])?;
                    all.extend(ops.iter().cloned());
                    all.push(KeyOp::Keep { key: self.mark("acted") });
                    self.run(all).await
                }
                Err(why) => Tried::Refused(why.clone()),
            };
            match tried {
                Tried::Done => {}
                Tried::InTheWay => tokio::task::yield_now().await,
                Tried::Unknown => return None,
                Tried::Refused(why) if !is_final => return refused(why),
                Tried::Refused(why) => {
                    // For good: whoever asks again must hear the same.
                    let mut mark = self.guarded(&marks, &["refused", "undone", "acted"])?;
                    let value = Some(Bytes::from(why));
                    mark.push(KeyOp::Put { key: self.mark("refused"), value });
                    self.run(mark).await;
                }
            }
        }
        Some(Err(Failure::Busy))
    }

    async fn compensate(&self, work: &Bytes, mut given: Vec<Given>) -> Option<Result<(), Failure>> {
        for _ in 0..TRIES {
            let marks = self.marks()?;
            if marks.undone.is_some() {
                return Some(Ok(()));
            }
            let mut all = self.guarded(&marks, &["undone"])?;
            all.push(KeyOp::Expect { key: self.mark("acted"), value: marks.acted.clone() });
            if let Some(acted) = &marks.acted {
                // Known here also if the orchestrator never heard it.
                given.retain(|given| given.step != self.step);
                given.push(Given { step: self.step.into(), output: output(acted) });
                match operations(work, &given) {
                    Ok(ops) => all.extend(ops),
                    Err(why) => return Some(Err(Failure::Refused { why })),
                }
            }
            all.push(KeyOp::Put { key: self.mark("undone"), value: Some(Bytes::new()) });
            match self.run(all).await {
                Tried::Done => {}
                Tried::InTheWay => tokio::task::yield_now().await,
                Tried::Unknown => return None,
                // Not for good: the money may come back.
                Tried::Refused(why) => return Some(Err(Failure::Refused { why })),
            }
        }
        Some(Err(Failure::Busy))
    }

    fn mark(&self, what: &str) -> String {
        format!("{MARKS}{:020}/{}/{what}", self.saga.0, self.step)
    }

    /// What is durable: nothing else may be told.
    fn marks(&self) -> Option<Marks> {
        let core = self.member.core.borrow();
        let value = |key: &str| core.node.machine().value(self.space.id, key.as_bytes()).ok();
        Some(Marks {
            floor: value(FLOOR)?,
            acted: value(&self.mark("acted"))?,
            refused: value(&self.mark("refused"))?,
            undone: value(&self.mark("undone"))?,
        })
    }

    /// What a step's entry begins with: that nothing has changed since the marks were read, and what is to be forgotten.
    /// None if the saga is over.
    fn guarded(&self, marks: &Marks, absent: &[&str]) -> Option<Vec<KeyOp>> {
        let known = marks.floor.as_ref().and_then(|floor| std::str::from_utf8(floor).ok()?.parse().ok());
        let floor = self.floor.0.max(known.unwrap_or(0));
        if self.saga.0 < floor {
            return None;
        }
        let mut ops = vec![KeyOp::Expect { key: FLOOR.into(), value: marks.floor.clone() }];
        ops.extend(absent.iter().map(|what| KeyOp::Expect { key: self.mark(what), value: None }));
        if Some(floor) != known {
            ops.push(KeyOp::Put { key: FLOOR.into(), value: Some(Bytes::from(floor.to_string())) });
        }
        let core = self.member.core.borrow();
        let old = core.node.machine().values(self.space.id, MARKS.as_bytes(), b"", REMOVED_MAX).ok()?;
        let below = format!("{MARKS}{floor:020}/");
        let old = old.into_iter().filter_map(|(key, _)| String::from_utf8(key.into()).ok());
        ops.extend(old.take_while(|key| *key < below).map(|key| KeyOp::Put { key, value: None }));
        Some(ops)
    }

    async fn run(&self, ops: Vec<KeyOp>) -> Tried {
        match run(self.member, self.space.id, &self.space.name, ops, TIMEOUT).await {
            Ok(ended) if ended.decision == Decision::Commit => Tried::Done,
            Ok(ended) => match ended.refusal {
                // One of the marks, or a condition of the step's own.
                Some(Refusal::Unexpected { name }) if name.starts_with('\0') => Tried::InTheWay,
                Some(Refusal::Locked { .. } | Refusal::Busy) | None => Tried::InTheWay,
                Some(why) => Tried::Refused(synod_protocols::Describe::detail(&why)),
            },
            Err(HostedError::TooLarge(why)) => Tried::Refused(why),
            Err(_) => Tried::Unknown,
        }
    }
}

/// What is to be done, with the outputs that it names. Errors: why that can never be done.
fn operations(work: &Bytes, given: &[Given]) -> Result<Vec<KeyOp>, String> {
    let ops: Vec<Value> = serde_json::from_slice(work).map_err(|_| "the work cannot be read".to_owned())?;
    let ops = outputs::fill(&ops, given)?;
    let ops = read_ops(&ops).map_err(ApiError::into_message)?;
    for op in &ops {
        // What was filled in may be no key: empty, too long, or one of Synod's own.
        check_key(op.key()).map_err(|error| ApiError::from(error).into_message())?;
    }
    Ok(ops)
}

/// What a step read, as JSON that later steps are given.
fn output(read: &Bytes) -> Bytes {
    let values = Vec::<Option<Bytes>>::from_bytes(read.clone()).unwrap_or_default();
    Bytes::from(crate::http::shown_values(&values).to_string())
}

/// Runs operations on one keyspace, keys of Synod's own included.
async fn run<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    space: SpaceId,
    name: &str,
    ops: Vec<KeyOp>,
    timeout: Duration,
) -> Result<Ended, HostedError> {
    let id = NodeId(space.0);
    let planned = Planned {
        branches: [(id, ops.to_bytes())].into(),
        names: [(id, name.to_owned())].into(),
        route: Route::OneEntry,
    };
    let (answer, ended) = oneshot::channel();
    let mailbox = member.calls.borrow().host.clone();
    mailbox.tell(Happened::Run(Request { planned, timeout, answer }));
    ended.await.unwrap_or(Err(HostedError::Stopping))
}
