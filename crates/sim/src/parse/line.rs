//! One line of a script: its words, and what a word or two of them say by themselves.

use super::Parsed;
use crate::script::{DELAY_MAX, Delay, Member, Target};
use crate::units::{Factor, Share, Span};

/// The longest key, value or protocol name in a script, in bytes.
pub const WORD_BYTES_MAX: usize = 256;

/// A line and how far it was read.
pub(super) struct Line<'a> {
    words: &'a [&'a str],
    next: usize,
    /// The last member that may be named.
    members: u8,
}

impl<'a> Line<'a> {
    /// A line whose first word was read.
    pub(super) fn after_keyword(words: &'a [&'a str], members: u8) -> Line<'a> {
        Line { words, next: 1, members }
    }

    /// Refuses whatever was not read.
    pub(super) fn end(&self) -> Parsed<()> {
        match self.peek() {
            Some(extra) => Err(format!("`{extra}` is more than this line takes")),
            None => Ok(()),
        }
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    pub(super) fn word(&mut self, what: &str, example: &str) -> Parsed<&'a str> {
        let word = self
            .peek()
            .ok_or_else(|| format!("the line ends where {what} is expected; for example: `{example}`"))?;
        if word.len() > WORD_BYTES_MAX {
            return Err(format!("{what} is {} bytes long; at most {WORD_BYTES_MAX} are allowed", word.len()));
        }
        self.next += 1;
        Ok(word)
    }

    /// Takes the next word if it is this one.
    pub(super) fn accept(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    pub(super) fn literal(&mut self, word: &str, example: &str) -> Parsed<()> {
        match self.word(&format!("`{word}`"), example)? {
            found if found == word => Ok(()),
            found => Err(unknown(found, &format!("`{word}`"), example)),
        }
    }

    pub(super) fn number(&mut self, what: &str, min: u64, max: u64, example: &str) -> Parsed<u64> {
        let word = self.word(what, example)?;
        let range = if max == u64::MAX { String::new() } else { format!(" from {min} to {max}") };
        let number = word
            .parse::<u64>()
            .ok()
            .filter(|n| word.bytes().all(|b| b.is_ascii_digit()) && (min..=max).contains(n));
        number.ok_or_else(|| unknown(word, &format!("{what}: a whole number{range}"), example))
    }

    pub(super) fn span(&mut self, what: &str, min: Span, max: Span, example: &str) -> Parsed<Span> {
        let word = self.word(what, example)?;
        let span = Span::parse(word).filter(|span| (min..=max).contains(span));
        span.ok_or_else(|| unknown(word, &format!("{what} from {min} to {max}, with its unit"), example))
    }

    pub(super) fn share(&mut self, example: &str) -> Parsed<Share> {
        let word = self.word("a percentage", example)?;
        Share::parse(word).ok_or_else(|| unknown(word, "a percentage from 0% to 100%", example))
    }

    pub(super) fn delay(&mut self, example: &str) -> Parsed<Delay> {
        let what = "a delay, a range of delays, or `lognormal` with a median and a factor";
        if self.accept("lognormal") {
            let example = "latency lognormal 10ms 2.0";
            let median = self.span("a median", Span(0), DELAY_MAX, example)?;
            let word = self.word("a factor", example)?;
            let factor = Factor::parse(word).filter(|f| (1_000_000..=100_000_000).contains(&f.0));
            let factor = factor.ok_or_else(|| unknown(word, "a factor from 1 to 100", example))?;
            return Ok(Delay::LogNormal { median, factor });
        }
        let word = self.word(what, example)?;
        let bounded = |text: &str| Span::parse(text).filter(|span| *span <= DELAY_MAX);
        let delay = match word.split_once("..") {
            Some((low, high)) => match (bounded(low), bounded(high)) {
                (Some(low), Some(high)) if low < high => Some(Delay::Uniform(low, high)),
                (Some(low), Some(high)) if low == high => Some(Delay::Fixed(low)),
                _ => None,
            },
            None => bounded(word).map(Delay::Fixed),
        };
        delay.ok_or_else(|| unknown(word, &format!("{what}, at most {DELAY_MAX}"), example))
    }

    pub(super) fn member(&mut self, example: &str) -> Parsed<Member> {
        let word = self.word("a member", example)?;
        self.member_named(word, example)
    }

    pub(super) fn member_named(&self, word: &str, example: &str) -> Parsed<Member> {
        let number = word.strip_prefix('n').and_then(|digits| digits.parse::<u8>().ok());
        let number = number.filter(|n| (1..=self.members).contains(n));
        number
            .map(Member)
            .ok_or_else(|| unknown(word, &format!("a member from n1 to n{}", self.members), example))
    }

    pub(super) fn target(&mut self, example: &str) -> Parsed<Target> {
        match self.word("a member, `leader`, `follower` or `all`", example)? {
            "leader" => Ok(Target::Leader),
            "follower" => Ok(Target::Follower),
            "all" => Ok(Target::All),
            word => self.member_named(word, example).map(Target::Node).map_err(|_| {
                unknown(word, &format!("n1 to n{}, `leader`, `follower` or `all`", self.members), example)
            }),
        }
    }

    pub(super) fn message(&mut self, example: &str) -> Parsed<u64> {
        let word = self.word("a message", example)?;
        let number = word.strip_prefix('m').and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| unknown(word, "a message by its number", example))
    }
}

/// What is said where something else was found.
pub(super) fn unknown(found: &str, expected: &str, example: &str) -> String {
    format!("found `{found}`, expected {expected}; for example: `{example}`")
}
