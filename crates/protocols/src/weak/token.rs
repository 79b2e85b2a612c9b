//! Session tokens: what a client has seen, carried by itself from member to member.
//!
//! A session that shows the token of its last answer with its next request has the four guarantees of Terry et al.,
//! *Session Guarantees for Weakly Consistent Replicated Data* (PDIS 1994), at whichever member it asks: a member
//! whose context does not include the token's has not caught up, and waits. Reads then include what the session
//! read and wrote before; and its writes come, for everybody, after what it read and wrote before.
//!
//! A token is sealed by SipHash-2-4 (Aumasson and Bernstein, 2012) under a secret of the cluster. Without that a client could
//! invent a context that nobody will ever have and make every member wait for it. It is no secret what is in it, and
//! whoever has a token may use it. The seal has 64 bits: who wants to guess one has to ask a member 2⁶³ times.

use super::dots::CausalContext;
use super::{ClusterId, KeyspaceId};
use crate::wire::{Reader, Wire, put_varint};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// Bytes of a token at the most; a longer one is refused.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// What a token holds, beside whose it is: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A causal context.
    Context = 1,
    /// How far a replicated log is applied.
    Index = 2,
}

impl Format {
    const ALL: [Format; 2] = [Format::Context, Format::Index];
}

/// What seals the tokens of a cluster; known to its members only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Secret(pub [u64; 2]);

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenError {
    /// Not a token, or one of a format that is not known here.
    Malformed,
    /// Sealed by a cluster of this name, which is not this one.
    OtherCluster(ClusterId),
    /// Of this keyspace, which is not the one that was asked.
    OtherKeyspace(KeyspaceId),
    /// The seal does not fit: it was made up or altered, or the cluster's secret has changed.
    Forged,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Malformed => write!(f, "this is not a session token; begin a new session"),
            TokenError::OtherCluster(id) => {
                write!(f, "the session token is of cluster {:x}; begin a session here", id.0)
            }
            TokenError::OtherKeyspace(id) => {
                write!(f, "the session token is of keyspace {}; each keyspace has sessions of its own", id.0)
            }
            TokenError::Forged => {
                write!(f, "the session token's seal does not fit; begin a new session")
            }
        }
    }
}

/// A token that says: this was seen.
pub fn seal(secret: Secret, cluster: ClusterId, keyspace: KeyspaceId, seen: &CausalContext) -> Bytes {
    seal_as(Format::Context, secret, cluster, keyspace, seen)
}

/// A token with something else in it.
pub fn seal_as<T: Wire>(
    format: Format,
    secret: Secret,
    cluster: ClusterId,
    keyspace: KeyspaceId,
    content: &T,
) -> Bytes {
    let mut out = alloc::vec![format as u8];
    put_varint(&mut out, cluster.0);
    put_varint(&mut out, keyspace.0);
    content.encode(&mut out);
    let seal = siphash_2_4(secret.0, &out);
    out.extend_from_slice(&seal.to_le_bytes());
    out.into()
}

/// What a token says was seen.
///
/// # Errors
/// Everything but a token of this cluster and keyspace.
pub fn open(
    token: &Bytes,
    secret: Secret,
    cluster: ClusterId,
    keyspace: KeyspaceId,
) -> Result<CausalContext, TokenError> {
    open_as(Format::Context, token, secret, cluster, keyspace)
}

/// What was sealed by [`seal_as`] in the same format.
///
/// # Errors
/// Everything but a token of this format, cluster and keyspace.
pub fn open_as<T: Wire>(
    format: Format,
    token: &Bytes,
    secret: Secret,
    cluster: ClusterId,
    keyspace: KeyspaceId,
) -> Result<T, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (content, seal) = token.split_last_chunk::<8>().ok_or(TokenError::Malformed)?;
    let mut reader = Reader::new(token.slice(..content.len()));
    let mut read = || {
        let tag = reader.byte("format").ok()?;
        let of_format = Format::ALL.into_iter().find(|known| *known as u8 == tag)?;
        let of_cluster = ClusterId(reader.varint("cluster").ok()?);
        let of_keyspace = KeyspaceId(reader.varint("keyspace").ok()?);
        // What is in a token of another format is of no interest: it is of another keyspace.
        let held = (of_format == format).then(|| T::from_bytes(reader.clone().into_rest()).ok());
        let held = held.map_or(Some(None), |held| held.map(Some))?;
        Some((of_cluster, of_keyspace, held))
    };
    let (of_cluster, of_keyspace, held) = read().ok_or(TokenError::Malformed)?;
    // Said first, since it helps more: another cluster's seal cannot fit either.
    if of_cluster != cluster {
        return Err(TokenError::OtherCluster(of_cluster));
    }
    if siphash_2_4(secret.0, content) != u64::from_le_bytes(*seal) {
        return Err(TokenError::Forged);
    }
    match of_keyspace == keyspace {
        true => held.ok_or(TokenError::Malformed),
        false => Err(TokenError::OtherKeyspace(of_keyspace)),
    }
}

/// The keyed hash SipHash with two rounds a word and four at the end.
fn siphash_2_4(key: [u64; 2], data: &[u8]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = data.as_chunks::<8>();
    let mut last: Vec<u8> = rest.to_vec();
    last.resize(7, 0);
    last.push(data.len() as u8);
    let last = last.as_chunks::<8>().0;
    for word in words.iter().chain(last) {
        let word = u64::from_le_bytes(*word);
        v[3] ^= word;
        (0..2).for_each(|_| round(&mut v));
        v[0] ^= word;
    }
    v[2] ^= 0xFF;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::super::dots::{Dot, Origin};
    use super::*;
    use crate::types::{Incarnation, NodeId};

    const SECRET: Secret = Secret([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
    const HERE: (ClusterId, KeyspaceId) = (ClusterId(7), KeyspaceId(2));

    #[test]
    fn the_hash_is_that_of_the_paper() {
        // Appendix A: the key 00 to 0f, and the fifteen bytes 00 to 0e.
        let data: Vec<u8> = (0..15).collect();
        assert_eq!(siphash_2_4(SECRET.0, &data), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn only_what_was_sealed_here_is_opened() {
        let mut seen = CausalContext::new();
        seen.insert(Dot { origin: Origin { node: NodeId(1), since: Incarnation(1) }, count: 1 });
        let token = seal(SECRET, HERE.0, HERE.1, &seen);
        assert_eq!(open(&token, SECRET, HERE.0, HERE.1), Ok(seen));
        let elsewhere = ClusterId(8);
        assert_eq!(open(&token, SECRET, elsewhere, HERE.1), Err(TokenError::OtherCluster(HERE.0)));
        assert_eq!(open(&token, SECRET, HERE.0, KeyspaceId(3)), Err(TokenError::OtherKeyspace(HERE.1)));
        assert_eq!(open(&token, Secret([1, 2]), HERE.0, HERE.1), Err(TokenError::Forged));
        for place in 0..token.len() {
            let mut altered = token.to_vec();
            altered[place] ^= 1;
            assert!(open(&altered.into(), SECRET, HERE.0, HERE.1).is_err(), "byte {place}");
            assert!(open(&token.slice(..place), SECRET, HERE.0, HERE.1).is_err(), "{place} bytes");
        }
    }

    #[test]
    fn a_token_of_another_format_is_of_another_keyspace() {
        let token = seal_as(Format::Index, SECRET, HERE.0, HERE.1, &42u64);
        assert_eq!(open_as(Format::Index, &token, SECRET, HERE.0, HERE.1), Ok(42u64));
        assert_eq!(open(&token, SECRET, HERE.0, KeyspaceId(3)), Err(TokenError::OtherKeyspace(HERE.1)));
        assert_eq!(open(&token, SECRET, HERE.0, HERE.1), Err(TokenError::Malformed));
        let unknown = Bytes::from([&[3], &token[1..]].concat());
        assert_eq!(open(&unknown, SECRET, HERE.0, HERE.1), Err(TokenError::Malformed));
    }
}
