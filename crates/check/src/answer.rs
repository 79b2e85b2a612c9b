//! The answer to "does this history satisfy this model?", the same for every model.

use crate::linearizable::OperationIndex;

/// The answer for one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does.
    Yes(Proof),
    /// It does not, and this shows it.
    No(Reason),
    /// It was not decided: what stopped it, and what was proved until then.
    Unknown(String),
}

/// Why a model holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// An order of the operations that anybody can replay; none where the model needs no single order.
    pub order: Option<Vec<OperationIndex>>,
    /// The argument in words.
    pub words: String,
}

/// Why a model fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// The operations that contradict the model.
    pub operations: Vec<OperationIndex>,
    /// Whether it was shown that none of them can be left out.
    pub minimal: bool,
    /// Which of them must come before which, each with why. Where they form a cycle, each starts where the one before ends.
    pub links: Vec<Link>,
    /// The contradiction in a sentence or two.
    pub words: String,
}

/// One operation must come before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The earlier operation.
    pub from: OperationIndex,
    /// The later one.
    pub to: OperationIndex,
    /// Why, for people.
    pub why: String,
}

impl Answer {
    /// Whether the model was shown to hold.
    pub fn is_yes(&self) -> bool {
        matches!(self, Answer::Yes(_))
    }

    /// Whether the model was shown to fail.
    pub fn is_no(&self) -> bool {
        matches!(self, Answer::No(_))
    }

    pub(crate) fn yes(words: impl Into<String>) -> Answer {
        Answer::Yes(Proof { order: None, words: words.into() })
    }

    pub(crate) fn ordered(order: Vec<OperationIndex>, words: impl Into<String>) -> Answer {
        Answer::Yes(Proof { order: Some(order), words: words.into() })
    }
}
