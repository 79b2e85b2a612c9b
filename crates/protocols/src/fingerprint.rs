//! Digests of state, stable across builds and machines: FNV-1a over words, finished by a mixer.

use core::hash::Hasher;

/// A running 64-bit digest. It implements [`Hasher`], so that `#[derive(Hash)]` types feed it, and
/// writes integers in little-endian order whatever the machine.
#[derive(Clone, Debug)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The digest of nothing.
    pub const fn new() -> Fingerprint {
        Fingerprint(0xCBF2_9CE4_8422_2325)
    }

    /// Adds one word.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.word(short_word(rest));
        }
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }
    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn finish(&self) -> u64 {
        let z = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        z ^ (z >> 32)
    }
}

/// Up to seven bytes as a word in little-endian order, by two reads that may overlap: most keys and messages are
/// short, so that this is where they are read.
fn short_word(bytes: &[u8]) -> u64 {
    let shift = |at: usize| 8 * at as u32;
    if let (Some(low), Some(high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let high = u64::from(u32::from_le_bytes(*high)) << shift(bytes.len() - 4);
        u64::from(u32::from_le_bytes(*low)) | high
    } else if let (Some(low), Some(high)) = (bytes.first_chunk::<2>(), bytes.last_chunk::<2>()) {
        let high = u64::from(u16::from_le_bytes(*high)) << shift(bytes.len() - 2);
        u64::from(u16::from_le_bytes(*low)) | high
    } else {
        bytes.first().map_or(0, |byte| u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_words_hold_their_bytes_in_order() {
        let bytes = [1, 2, 3, 4, 5, 6, 7];
        for len in 0..=bytes.len() {
            let plain = bytes[..len].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            assert_eq!(short_word(&bytes[..len]), plain, "{len} bytes");
        }
    }
}
