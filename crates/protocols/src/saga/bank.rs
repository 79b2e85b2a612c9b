//! A bank as a service for sagas: every movement is visible at once, and done once.

use super::SagaId;
use super::message::{Failure, Given, Message};
use crate::contract::{Describe, Effects, Input, Process, Recovery};
use crate::fingerprint::Fingerprint;
use crate::types::{NodeId, Time};
use crate::wire::Wire;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use bytes::Bytes;
use core::hash::Hash;

/// How much is moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Amount {
    /// This much.
    Fixed {
        /// In the smallest unit of the currency.
        units: u64,
    },
    /// As much as this step, an earlier one or the one that is undone, has moved.
    Output {
        /// Which step.
        step: String,
    },
}

crate::wire_format!(enum Amount { 1 => Fixed { units }, 2 => Output { step } });

/// What a step does at a bank. Its output is the amount moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Movement {
    /// Takes from an account that has as much.
    Debit {
        /// The account.
        account: String,
        /// How much.
        amount: Amount,
    },
    /// Gives to an account.
    Credit {
        /// The account.
        account: String,
        /// How much.
        amount: Amount,
    },
    /// Takes all that an account has.
    Sweep {
        /// The account.
        account: String,
    },
}

crate::wire_format!(enum Movement {
    1 => Debit { account, amount },
    2 => Credit { account, amount },
    3 => Sweep { account },
});

/// What an owner of a bank decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Accounts and balances before the first movement; the same in every life.
    pub accounts: BTreeMap<String, u64>,
    /// Steps that are remembered; at the bound new ones are answered [`Failure::Busy`]. Default 65,536.
    pub remembered_max: usize,
}

impl ServiceConfig {
    /// A bank with defaults for everything else.
    pub fn new(accounts: impl IntoIterator<Item = (String, u64)>) -> ServiceConfig {
        ServiceConfig { accounts: accounts.into_iter().collect(), remembered_max: 65_536 }
    }
}

/// What a bank makes durable: what became of one step, under its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceRecord {
    /// An account has this balance now, and the step is done.
    Acted {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
        /// The account.
        account: String,
        /// What it has now.
        balance: u64,
        /// What was moved.
        output: u64,
    },
    /// The step was refused, for good.
    Refused {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
        /// Why.
        why: String,
    },
    /// The step is undone, or will never be done.
    Compensated {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
        /// The account and what it has now, if there was something to undo.
        account: String,
        /// As above.
        balance: u64,
        /// Whether there was.
        had_acted: bool,
    },
}

crate::wire_format!(enum ServiceRecord {
    1 => Acted { saga, step, account, balance, output },
    2 => Refused { saga, step, why },
    3 => Compensated { saga, step, account, balance, had_acted },
});

impl Describe for ServiceRecord {
    fn name(&self) -> &'static str {
        match self {
            ServiceRecord::Acted { .. } => "Acted",
            ServiceRecord::Refused { .. } => "Refused",
            ServiceRecord::Compensated { had_acted: true, .. } => "Compensated",
            ServiceRecord::Compensated { had_acted: false, .. } => "Cancelled",
        }
    }

    fn detail(&self) -> String {
        match self {
            ServiceRecord::Acted { saga, step, account, balance, .. } => {
                format!("{saga} {step}, {account} has {balance}")
            }
            ServiceRecord::Refused { saga, step, why } => format!("{saga} {step}: {why}"),
            ServiceRecord::Compensated { saga, step, .. } => format!("{saga} {step}"),
        }
    }
}

/// What a bank tells its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceEvent {
    /// Money has moved: the step acted, or was undone.
    Moved {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
        /// Whether it was undone.
        is_compensation: bool,
    },
}

/// What became of a step here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Memory {
    Acted { output: u64 },
    Refused { why: String },
    Compensated,
}

/// A bank. Whatever it answers is durable, and a second asking finds the first answer.
#[derive(Clone, Debug)]
pub struct BankService {
    config: ServiceConfig,
    accounts: BTreeMap<String, u64>,
    memory: BTreeMap<(SagaId, String), Memory>,
    /// Sagas below this one are over, and forgotten.
    floor: SagaId,
    abstains: bool,
    ignored: u64,
}

impl Process for BankService {
    type Config = ServiceConfig;
    type Message = Message;
    type Record = ServiceRecord;
    type Request = ();
    type Ask = ();
    type Answer = ();
    type Event = ServiceEvent;
    type Base = ();

    fn recover(
        config: ServiceConfig,
        from: Recovery<'_, ServiceRecord>,
        (): (),
        _: Time,
        _: &mut Effects<Self>,
    ) -> Self {
        let mut bank = BankService {
            accounts: config.accounts.clone(),
            config,
            memory: BTreeMap::new(),
            floor: SagaId(0),
            abstains: matches!(from, Recovery::Damaged { .. }),
            ignored: 0,
        };
        if let Recovery::Resume { records } = from {
            records.for_each(|record| bank.apply(record));
        }
        bank
    }

    fn step(&mut self, _: Time, input: Input<Self>, out: &mut Effects<Self>) {
        let Input::Message { from, message } = input else { return };
        if self.abstains {
            return;
        }
        match message {
            Message::Act { floor, saga, step, work, given, is_final } => {
                if self.is_open(floor, saga) {
                    self.on_act(from, (saga, step), &work, (&given, is_final), out);
                }
            }
            Message::Compensate { floor, saga, step, work, given } => {
                if self.is_open(floor, saga) {
                    self.on_compensate(from, saga, step, &work, &given, out);
                }
            }
            _ => self.ignored += 1,
        }
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn fingerprint(&self, _: Time, digest: &mut Fingerprint) {
        (&self.accounts, &self.memory, self.floor, self.abstains).hash(digest);
    }
}

/// For hosts, tests and people.
impl BankService {
    /// The balances that anybody sees.
    pub fn accounts(&self) -> &BTreeMap<String, u64> {
        &self.accounts
    }

    /// How many steps it remembers.
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    /// Malformed, late or foreign messages ignored in this life.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

impl BankService {
    /// Whether the saga is not over. What is over is forgotten.
    fn is_open(&mut self, floor: SagaId, saga: SagaId) -> bool {
        self.floor = self.floor.max(floor);
        let floor = self.floor;
        self.memory.retain(|(saga, _), _| *saga >= floor);
        self.ignored += u64::from(saga < floor);
        saga >= floor
    }

    fn on_act(
        &mut self,
        to: NodeId,
        (saga, step): (SagaId, String),
        work: &Bytes,
        (given, is_final): (&[Given], bool),
        out: &mut Effects<Self>,
    ) {
        let key = (saga, step.clone());
        if !self.memory.contains_key(&key) {
            if self.memory.len() >= self.config.remembered_max {
                let (failure, is_compensation) = (Failure::Busy, false);
                return out.send(to, Message::Failed { saga, step, is_compensation, failure });
            }
            let record = match self.movement(work, given, None) {
                Ok((account, balance, output)) => {
                    out.event(ServiceEvent::Moved { saga, step: step.clone(), is_compensation: false });
                    ServiceRecord::Acted { saga, step: step.clone(), account, balance, output }
                }
                Err(why) if !is_final => {
                    let (failure, is_compensation) = (Failure::Refused { why }, false);
                    return out.send(to, Message::Failed { saga, step, is_compensation, failure });
                }
                Err(why) => ServiceRecord::Refused { saga, step: step.clone(), why },
            };
            self.apply(record.clone());
            out.record(record);
        }
        let failure = match &self.memory[&key] {
            Memory::Acted { output } => {
                return out.send(to, Message::Acted { saga, step, output: output.to_bytes() });
            }
            Memory::Refused { why } => Failure::Refused { why: why.clone() },
            // The compensation has overtaken the action, which must never happen now.
            Memory::Compensated => Failure::Refused { why: "it was compensated before".into() },
        };
        out.send(to, Message::Failed { saga, step, is_compensation: false, failure });
    }

    fn on_compensate(
        &mut self,
        to: NodeId,
        saga: SagaId,
        step: String,
        work: &Bytes,
        given: &[Given],
        out: &mut Effects<Self>,
    ) {
        let key = (saga, step.clone());
        let record = match self.memory.get(&key) {
            Some(Memory::Compensated) => None,
            Some(Memory::Acted { output }) => match self.movement(work, given, Some((&step, *output))) {
                Ok((account, balance, _)) => {
                    out.event(ServiceEvent::Moved { saga, step: step.clone(), is_compensation: true });
                    let had_acted = true;
                    Some(ServiceRecord::Compensated { saga, step: step.clone(), account, balance, had_acted })
                }
                Err(why) => {
                    // Not for good: the money may come back.
                    let failure = Failure::Refused { why };
                    return out.send(to, Message::Failed { saga, step, is_compensation: true, failure });
                }
            },
            // There is nothing to undo, and there never will be: the mark keeps a late action out.
            Some(Memory::Refused { .. }) | None => {
                let (account, balance, had_acted) = (String::new(), 0, false);
                Some(ServiceRecord::Compensated { saga, step: step.clone(), account, balance, had_acted })
            }
        };
        if let Some(record) = record {
            self.apply(record.clone());
            out.record(record);
        }
        out.send(to, Message::Compensated { saga, step });
    }

    /// The account, what it would have, and how much would be moved.
    fn movement(
        &self,
        work: &Bytes,
        given: &[Given],
        own: Option<(&String, u64)>,
    ) -> Result<(String, u64, u64), String> {
        let movement =
            Movement::from_bytes(work.clone()).map_err(|e| format!("the work cannot be read: {e}"))?;
        let resolve = |amount: Amount| match amount {
            Amount::Fixed { units } => Ok(units),
            Amount::Output { step } => {
                let earlier = given.iter().find(|given| given.step == step);
                let earlier = earlier.and_then(|given| u64::from_bytes(given.output.clone()).ok());
                let own = own.filter(|(own, _)| **own == step).map(|(_, output)| output);
                own.or(earlier).ok_or_else(|| format!("{step} has no output"))
            }
        };
        let balance_of = |account: &String| {
            self.accounts.get(account).copied().ok_or_else(|| format!("there is no account {account}"))
        };
        match movement {
            Movement::Debit { account, amount } => {
                let (amount, balance) = (resolve(amount)?, balance_of(&account)?);
                let left = balance.checked_sub(amount);
                let left = left.ok_or_else(|| format!("{account} has only {balance}"))?;
                Ok((account, left, amount))
            }
            Movement::Credit { account, amount } => {
                let (amount, balance) = (resolve(amount)?, balance_of(&account)?);
                let more = balance.checked_add(amount);
                let more = more.ok_or_else(|| format!("{account} cannot hold that much"))?;
                Ok((account, more, amount))
            }
            Movement::Sweep { account } => {
                let balance = balance_of(&account)?;
                Ok((account, 0, balance))
            }
        }
    }

    fn apply(&mut self, record: ServiceRecord) {
        match record {
            ServiceRecord::Acted { saga, step, account, balance, output } => {
                self.accounts.insert(account, balance);
                self.memory.insert((saga, step), Memory::Acted { output });
            }
            ServiceRecord::Refused { saga, step, why } => {
                self.memory.insert((saga, step), Memory::Refused { why });
            }
            ServiceRecord::Compensated { saga, step, account, balance, had_acted } => {
                if had_acted {
                    self.accounts.insert(account, balance);
                }
                self.memory.insert((saga, step), Memory::Compensated);
            }
        }
    }
}
