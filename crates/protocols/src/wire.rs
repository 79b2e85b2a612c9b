//! The bounded binary encoding of messages and records.
//!
//! Integers are LEB128 varints, byte strings carry their length, and a decoder never allocates more
//! than the input could hold. Decoding shares the input's memory: a [`Bytes`] that was read from a
//! socket or a log is sliced, not copied. The layouts are documented in `docs/formats.md` and
//! pinned by golden bytes.

use crate::types::NodeId;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::{Buf, Bytes};
use core::fmt;

/// Why bytes are not what they were expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The input ended inside `what`.
    Short {
        /// What was being read.
        what: &'static str,
    },
    /// `what` has a value that no encoder writes.
    Invalid {
        /// What was being read.
        what: &'static str,
        /// The value found.
        value: u64,
    },
    /// Bytes are left over after a complete value.
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Short { what } => write!(f, "the input ends inside {what}"),
            DecodeError::Invalid { what, value } => write!(f, "{what} cannot be {value}"),
            DecodeError::Trailing { bytes } => {
                write!(f, "{bytes} bytes are left over after a complete value")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// What encodings are appended to.
pub type Output = Vec<u8>;

/// A value with one binary encoding.
pub trait Wire: Sized {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads one value. Never panics, whatever the input.
    fn decode(input: &mut Reader) -> Result<Self, DecodeError>;

    /// The encoding on its own.
    fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// Reads exactly one value from all of `input`.
    fn from_bytes(input: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(input);
        let value = Self::decode(&mut reader)?;
        match reader.remaining() {
            0 => Ok(value),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// A cursor over shared bytes.
#[derive(Clone, Debug)]
pub struct Reader {
    input: Bytes,
}

impl Reader {
    /// Reads from the start of `input`.
    pub fn new(input: Bytes) -> Reader {
        Reader { input }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.input.len()
    }

    /// What was not read.
    pub fn into_rest(self) -> Bytes {
        self.input
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let byte = *self.input.first().ok_or(DecodeError::Short { what })?;
        self.input.advance(1);
        Ok(byte)
    }

    /// A varint; encodings longer than ten bytes or beyond 64 bits are refused.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, &byte) in self.input.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7F);
            if i == 9 && bits > 1 {
                return Err(DecodeError::Invalid { what, value: bits });
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                // In place: a slice would count one more owner of the memory, and one less.
                self.input.advance(i + 1);
                return Ok(value);
            }
        }
        Err(DecodeError::Short { what })
    }

    /// A flag: 0 or 1.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Invalid { what, value: u64::from(other) }),
        }
    }

    /// A byte string with its length before it, sharing the input's memory.
    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.varint(what)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.input.len() => Ok(self.input.split_to(len)),
            _ => Err(DecodeError::Short { what }),
        }
    }

    /// A list: its count, then its items. The count is checked against what is left, so that a
    /// hostile count allocates nothing.
    pub fn list<T>(
        &mut self,
        what: &'static str,
        mut item: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.varint(what)?;
        if count > self.input.len() as u64 {
            return Err(DecodeError::Short { what });
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Appends a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a byte string with its length before it.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a list: its count, then its items.
pub fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&T, &mut Vec<u8>)) {
    put_varint(out, items.len() as u64);
    for value in items {
        item(value, out);
    }
}

impl Wire for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }

    fn decode(input: &mut Reader) -> Result<u64, DecodeError> {
        input.varint("number")
    }
}

/// Zigzag, so that small numbers of either sign are short.
impl Wire for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, ((self << 1) ^ (self >> 63)) as u64);
    }

    fn decode(input: &mut Reader) -> Result<i64, DecodeError> {
        let zigzag = input.varint("number")?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }
}

impl Wire for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(input: &mut Reader) -> Result<bool, DecodeError> {
        input.flag("flag")
    }
}

impl Wire for NodeId {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0);
    }

    fn decode(input: &mut Reader) -> Result<NodeId, DecodeError> {
        Ok(NodeId(input.varint("member")?))
    }
}

impl Wire for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self);
    }

    fn decode(input: &mut Reader) -> Result<Bytes, DecodeError> {
        input.bytes("bytes")
    }
}

impl Wire for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }

    fn decode(input: &mut Reader) -> Result<String, DecodeError> {
        let bytes = input.bytes("text")?;
        let invalid = |e: core::str::Utf8Error| DecodeError::Invalid {
            what: "text",
            value: u64::from(bytes.get(e.valid_up_to()).copied().unwrap_or_default()),
        };
        core::str::from_utf8(&bytes).map(String::from).map_err(invalid)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Reader) -> Result<Option<T>, DecodeError> {
        Ok(if input.flag("presence")? { Some(T::decode(input)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, self, |item, out| item.encode(out));
    }

    fn decode(input: &mut Reader) -> Result<Vec<T>, DecodeError> {
        input.list("list", T::decode)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn encode(&self, out: &mut Output) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(input: &mut Reader) -> Result<(A, B), DecodeError> {
        Ok((A::decode(input)?, B::decode(input)?))
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn encode(&self, out: &mut Output) {
        self.0.encode(out);
        self.1.encode(out);
        self.2.encode(out);
    }

    fn decode(input: &mut Reader) -> Result<(A, B, C), DecodeError> {
        Ok((A::decode(input)?, B::decode(input)?, C::decode(input)?))
    }
}

/// Writes [`Wire`] for a struct or an enum whose fields all have it: fields in the order given, an
/// enum's after one byte which says the variant.
///
/// ```
/// use synod_protocols::Wire;
/// #[derive(Debug, PartialEq)]
/// enum Shape { Point, Box { width: u64, height: u64 } }
/// synod_protocols::wire_format!(enum Shape { 1 => Point, 2 => Box { width, height } });
/// assert_eq!(&Shape::Box { width: 3, height: 4 }.to_bytes()[..], [2, 3, 4]);
/// assert_eq!(Shape::from_bytes(Shape::Point.to_bytes()), Ok(Shape::Point));
/// ```
#[macro_export]
macro_rules! wire_format {
    (struct $name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn encode(&self, out: &mut $crate::wire::Output) {
                $($crate::wire::Wire::encode(&self.$field, out);)*
            }

            fn decode(
                input: &mut $crate::wire::Reader,
            ) -> ::core::result::Result<Self, $crate::wire::DecodeError> {
                Ok($name { $($field: $crate::wire::Wire::decode(input)?),* })
            }
        }
    };
    (enum $name:ident { $($tag:literal => $variant:ident $({ $($field:ident),* $(,)? })?),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn encode(&self, out: &mut $crate::wire::Output) {
                match self {
                    $($name::$variant $({ $($field),* })? => {
                        out.push($tag);
                        $($($crate::wire::Wire::encode($field, out);)*)?
                    })*
                }
            }

            fn decode(
                input: &mut $crate::wire::Reader,
            ) -> ::core::result::Result<Self, $crate::wire::DecodeError> {
                Ok(match input.byte(stringify!($name))? {
                    $($tag => $name::$variant $({ $($field: $crate::wire::Wire::decode(input)?),* })?,)*
                    kind => {
                        let value = u64::from(kind);
                        return Err($crate::wire::DecodeError::Invalid { what: stringify!($name), value });
                    }
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(Reader::new(out.into()).varint("v"), Ok(value));
            }
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        let mut reader = Reader::new(Bytes::from_static(&[0xFF; 11]));
        assert!(reader.varint("v").is_err());
    }

    #[test]
    fn a_hostile_count_allocates_nothing() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        let result = Reader::new(out.into()).list("entries", |r| r.byte("entry"));
        assert_eq!(result, Err(DecodeError::Short { what: "entries" }));
    }
}
