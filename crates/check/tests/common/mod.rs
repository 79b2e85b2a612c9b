//! What the tests against brute force share: a generator, a simulated object, and brute force itself.

#![allow(dead_code, unreachable_pub)]

use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome, Recorder, Reply};
use synod_check::model::{Entry, Model, NEVER};

/// SplitMix64: a small named generator, the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

pub fn shown(history: &History) -> String {
    let mut text = Vec::new();
    history.write(&mut text).expect("memory takes all");
    String::from_utf8(text).expect("JSON")
}

/// Runs clients against a real object that takes each operation's effect at a random moment between
/// invocation and return, so that the history is linearizable. `lossy`: some outcomes are unknown or failed.
pub fn simulated<M: Model>(
    model: &M,
    header: Header,
    random: &mut Random,
    (clients, operations): (usize, usize),
    lossy: bool,
    call: &dyn Fn(&mut Random, usize) -> Call,
    answer: &dyn Fn(&M::State, &Call) -> Reply,
) -> History {
    struct Open {
        handle: Handle,
        call: Call,
        reply: Option<Reply>,
    }
    let mut state = model.init();
    let mut open: Vec<Option<Open>> = (0..clients).map(|_| None).collect();
    let mut recorder = Recorder::new(header);
    let (mut started, mut time) = (0, 0);
    while started < operations || open.iter().any(Option::is_some) {
        time += 1;
        let client = random.below(clients as u64) as usize;
        match open[client].take() {
            None if started < operations => {
                let call = call(random, started);
                started += 1;
                let handle = recorder.invoke(Nanos(time), &format!("c{client}"), call.clone());
                open[client] = Some(Open { handle, call, reply: None });
            }
            None => {}
            Some(Open { handle, call, reply: None }) => {
                if lossy && random.one_in(6) {
                    let outcome =
                        if random.one_in(2) { Outcome::unknown("lost") } else { Outcome::fail("no") };
                    recorder.complete(Nanos(time), handle, outcome);
                    continue;
                }
                let reply = answer(&state, &call);
                let (op, decoded) = model.decode(&call, Some(&reply)).expect("an operation of this object");
                state = model.step(&state, &op, decoded.as_ref()).expect("it answers as it should");
                open[client] = Some(Open { handle, call, reply: Some(reply) });
            }
            Some(Open { handle, reply: Some(reply), .. }) => {
                let lost = lossy && random.one_in(6);
                let outcome = if lost { Outcome::unknown("lost") } else { Outcome::Ok(reply) };
                recorder.complete(Nanos(time), handle, outcome);
            }
        }
    }
    recorder.finish()
}

/// All but the failed operations of a history, decoded.
pub fn entries<M: Model>(model: &M, history: &History) -> Vec<(usize, Entry<M>)> {
    let decode = |(index, operation): (usize, &synod_check::history::Operation)| {
        let ret = match &operation.outcome {
            Outcome::Fail { .. } => return None,
            Outcome::Unknown { .. } => NEVER,
            Outcome::Ok(_) => operation.returned.expect("it returned").order,
        };
        let (op, answer) = model.decode_operation(operation).expect("an operation of this object");
        Some((index, Entry { op, answer, invoke: operation.invoked.order, ret }))
    };
    history.operations.iter().enumerate().filter_map(decode).collect()
}

/// Tries every order of every choice of operations. Shares nothing with the checker but the model's step.
pub fn brute_force<M: Model>(model: &M, rest: &[&Entry<M>], state: &M::State) -> bool {
    rest.iter().all(|entry| entry.ret == NEVER)
        || (0..rest.len()).any(|first| {
            let entry = rest[first];
            if rest.iter().any(|other| other.ret < entry.invoke) {
                return false;
            }
            let mut others = rest.to_vec();
            others.remove(first);
            model
                .step(state, &entry.op, entry.answer.as_ref())
                .is_some_and(|next| brute_force(model, &others, &next))
        })
}
