//! Header compression (RFC 7541), as much of it as a client needs: a full decoder, because a server may
//! use every part of the format in its answers, and an encoder without Huffman codes for requests whose
//! headers never change.

use std::collections::VecDeque;

/// The dynamic table's size until a setting says otherwise (RFC 7541, section 4.2; RFC 9113, 6.5.2).
pub(crate) const TABLE_BYTES_DEFAULT: usize = 4096;
/// What an entry costs beyond its name and value (RFC 7541, section 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;
/// The dynamic table's first index: the static table has 61 entries (RFC 7541, appendix A).
const DYNAMIC_INDEX_FIRST: usize = STATIC_TABLE.len() + 1;
/// The longest header string that is accepted, before and after Huffman decoding.
const STRING_BYTES_MAX: usize = 64 * 1024;

/// A header block that breaks RFC 7541, with the reason. It ends the connection, since the two ends no
/// longer agree on the dynamic table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Decodes the header blocks of one connection, in the order in which they arrive.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Newest first, as indices count.
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_DEFAULT }
    }
}

impl Decoder {
    /// Hands each field of a complete header block to `visit`, in order.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        let mut input = block;
        while let Some(&first) = input.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut input, 7)?;
                let (name, value) = self.field(index)?;
                visit(name, value);
            } else if first & 0xc0 == 0x40 {
                let (name, value) = self.literal(&mut input, 6)?;
                visit(&name, &value);
                self.insert(name, value);
            } else if first & 0xe0 == 0x20 {
                let bytes_max = integer(&mut input, 5)?;
                if bytes_max > TABLE_BYTES_DEFAULT {
                    return Err(Malformed("a dynamic table larger than was allowed"));
                }
                self.bytes_max = bytes_max;
                self.evict_to(bytes_max);
            } else {
                // Without indexing (0000) and never indexed (0001) differ for intermediaries only.
                let (name, value) = self.literal(&mut input, 4)?;
                visit(&name, &value);
            }
        }
        Ok(())
    }

    fn literal(&self, input: &mut &[u8], prefix_bits: u32) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let index = integer(input, prefix_bits)?;
        let name = if index == 0 { string(input)? } else { self.field(index)?.0.to_vec() };
        Ok((name, string(input)?))
    }

    fn field(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        if index == 0 {
            return Err(Malformed("index 0"));
        }
        if index < DYNAMIC_INDEX_FIRST {
            let (name, value) = STATIC_TABLE[index - 1];
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let (name, value) =
            self.entries.get(index - DYNAMIC_INDEX_FIRST).ok_or(Malformed("an index beyond the tables"))?;
        Ok((name, value))
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        if bytes > self.bytes_max {
            // RFC 7541, section 4.4: an entry larger than the table empties it, and is no error.
            self.evict_to(0);
            return;
        }
        self.evict_to(self.bytes_max - bytes);
        self.bytes += bytes;
        self.entries.push_front((name, value));
    }

    fn evict_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let (name, value) = self.entries.pop_back().expect("bytes are the sum over the entries");
            self.bytes -= name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

fn integer(input: &mut &[u8], prefix_bits: u32) -> Result<usize, Malformed> {
    const TRUNCATED: Malformed = Malformed("a truncated integer");
    let mask = (1_usize << prefix_bits) - 1;
    let (&first, mut rest) = input.split_first().ok_or(TRUNCATED)?;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(TRUNCATED)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            // Four continuation bytes reach 2^28, far above every limit here.
            if shift > 21 {
                return Err(Malformed("an integer that is too large"));
            }
        }
    }
    *input = rest;
    Ok(value)
}

fn string(input: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    const TRUNCATED: Malformed = Malformed("a truncated string");
    let huffman = input.first().ok_or(TRUNCATED)? & 0x80 != 0;
    let length = integer(input, 7)?;
    if length > STRING_BYTES_MAX {
        return Err(Malformed("a string that is too long"));
    }
    let (bytes, rest) = input.split_at_checked(length).ok_or(TRUNCATED)?;
    *input = rest;
    if huffman { huffman_decode(bytes) } else { Ok(bytes.to_vec()) }
}

fn huffman_decode(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut decoded = Vec::with_capacity(bytes.len() * 8 / 5);
    // Canonical decoding: `code` is what was read since the last symbol, `first` the smallest code of
    // this length, `index` its place among the symbols sorted by length and value.
    let (mut code, mut first, mut index, mut length) = (0_u32, 0_u32, 0_usize, 0_usize);
    for byte in bytes {
        for shift in (0..8).rev() {
            length += 1;
            code = code << 1 | u32::from(byte >> shift & 1);
            first <<= 1;
            let count = u32::from(HUFFMAN.count_by_length[length]);
            if code - first < count {
                let symbol = HUFFMAN.symbols[index + (code - first) as usize];
                decoded.push(u8::try_from(symbol).map_err(|_| Malformed("an end-of-string code"))?);
                (code, first, index, length) = (0, 0, 0, 0);
            } else {
                index += count as usize;
                first += count;
            }
        }
    }
    // RFC 7541, section 5.2: padding is shorter than a byte and is the beginning of the end-of-string
    // code, which is all ones.
    if length >= 8 || code != (1 << length) - 1 {
        return Err(Malformed("wrong padding after a Huffman string"));
    }
    Ok(decoded)
}

/// Appends an integer with the given prefix; `pattern` fills the bits above it.
fn write_integer(out: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let mask = (1_usize << prefix_bits) - 1;
    if value < mask {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    write_integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a field that both tables hold already.
pub(crate) fn write_indexed(out: &mut Vec<u8>, index: usize) {
    write_integer(out, 0x80, 7, index);
}

/// Appends a field as text; when `remember`, the peer's decoder adds it to its dynamic table.
pub(crate) fn write_literal(out: &mut Vec<u8>, name: &str, value: &str, remember: bool) {
    let (pattern, prefix_bits) = if remember { (0x40, 6) } else { (0, 4) };
    let name_index = STATIC_TABLE.iter().position(|(known, _)| *known == name).map_or(0, |place| place + 1);
    write_integer(out, pattern, prefix_bits, name_index);
    if name_index == 0 {
        write_string(out, name);
    }
    write_string(out, value);
}

/// Appends the announcement that the encoder's dynamic table now holds at most `bytes_max`.
pub(crate) fn write_table_size(out: &mut Vec<u8>, bytes_max: usize) {
    write_integer(out, 0x20, 5, bytes_max);
}

/// What a field costs in a dynamic table, in bytes.
pub(crate) fn entry_bytes(name: &str, value: &str) -> usize {
    name.len() + value.len() + ENTRY_OVERHEAD_BYTES
}

/// The index that a dynamic entry has once `inserted` entries were added and it was the `place`-th of
/// them, from 0.
pub(crate) fn dynamic_index(place: usize, inserted: usize) -> usize {
    DYNAMIC_INDEX_FIRST + (inserted - 1 - place)
}

struct Huffman {
    count_by_length: [u16; LENGTH_MAX + 1],
    symbols: [u16; SYMBOLS],
}

const SYMBOLS: usize = 257;
const LENGTH_MAX: usize = 30;

/// RFC 7541's Huffman code is canonical: the lengths of appendix B determine it.
static HUFFMAN: Huffman = {
    let mut count_by_length = [0; LENGTH_MAX + 1];
    let mut symbols = [0; SYMBOLS];
    let mut sorted = 0;
    let mut length = 1;
    while length <= LENGTH_MAX {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if CODE_BITS[symbol] as usize == length {
                count_by_length[length] += 1;
                symbols[sorted] = symbol as u16;
                sorted += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    Huffman { count_by_length, symbols }
};

/// How many bits each symbol's code has; the last is the end of string (RFC 7541, appendix B).
#[rustfmt::skip]
const CODE_BITS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// RFC 7541, appendix A; index 1 comes first.
#[rustfmt::skip]
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""),
    ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""),
    ("retry-after", ""), ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""),
    ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    fn decoded(decoder: &mut Decoder, hex: &str) -> Result<Vec<String>, Malformed> {
        let mut fields = Vec::new();
        decoder.decode(&bytes(hex), &mut |name, value| {
            fields.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        })?;
        Ok(fields)
    }

    #[test]
    fn requests_with_huffman_codes_share_a_table_as_in_appendix_c4() {
        let mut decoder = Decoder::default();
        let first = decoded(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff").unwrap();
        assert_eq!(first, [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"]);
        let second = decoded(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf").unwrap();
        assert_eq!(second[3..], [":authority: www.example.com", "cache-control: no-cache"]);
        let third =
            decoded(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf").unwrap();
        assert_eq!(third[3..], [":authority: www.example.com", "custom-key: custom-value"]);
        assert_eq!(decoder.bytes, 164);
    }

    #[test]
    fn plain_literals_as_in_appendix_c2() {
        let mut decoder = Decoder::default();
        let indexed =
            decoded(&mut decoder, "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
        assert_eq!(indexed.unwrap(), ["custom-key: custom-header"]);
        assert_eq!(decoder.bytes, 55);
        assert_eq!(
            decoded(&mut decoder, "040c 2f73 616d 706c 652f 7061 7468").unwrap(),
            [":path: /sample/path"]
        );
        assert_eq!(
            decoded(&mut decoder, "1008 7061 7373 776f 7264 0673 6563 7265 74").unwrap(),
            ["password: secret"]
        );
        assert_eq!(decoder.bytes, 55, "only the first was to be remembered");
    }

    #[test]
    fn a_smaller_table_evicts_the_oldest_entries_as_in_appendix_c6() {
        let mut decoder = Decoder { bytes_max: 256, ..Decoder::default() };
        let first =
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e
             919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        assert_eq!(decoded(&mut decoder, first).unwrap()[3], "location: https://www.example.com");
        assert_eq!(decoder.bytes, 222);
        let second = decoded(&mut decoder, "4883 640e ffc1 c0bf").unwrap();
        assert_eq!(second[0], ":status: 307");
        assert_eq!(second[2], "date: Mon, 21 Oct 2013 20:13:21 GMT");
        assert_eq!(decoder.bytes, 222, ":status: 302 had to leave");
        decoded(&mut decoder, "20").unwrap();
        assert_eq!(decoder.bytes, 0);
        assert_eq!(decoded(&mut decoder, "be"), Err(Malformed("an index beyond the tables")));
    }

    #[test]
    fn malformed_blocks_are_refused_and_not_panicked_over() {
        for (hex, why) in [
            ("80", "index 0"),
            ("7f", "a truncated integer"),
            ("ff ff ff ff ff ff 7f", "an integer that is too large"),
            ("3f ff 7f", "a dynamic table larger than was allowed"),
            ("00 05 61", "a truncated string"),
            ("00 7f ff ff 7f", "a string that is too long"),
            ("00 01 61 81 00", "wrong padding after a Huffman string"),
            ("00 01 61 84 ff ff ff ff", "an end-of-string code"),
            ("00 01 61 82 1f ff", "wrong padding after a Huffman string"),
        ] {
            assert_eq!(decoded(&mut Decoder::default(), hex), Err(Malformed(why)), "{hex}");
        }
        let mut seed = 7_u64;
        for length in 0..2000_usize {
            let noise: Vec<u8> = (0..length % 40)
                .map(|_| {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (seed >> 33) as u8
                })
                .collect();
            let mut decoder = Decoder::default();
            let _ = decoder.decode(&noise, &mut |_, _| {});
            assert!(decoder.bytes <= decoder.bytes_max);
        }
    }

    #[test]
    fn what_the_encoder_writes_the_decoder_reads() {
        let long = "x".repeat(300);
        let mut block = Vec::new();
        write_indexed(&mut block, 3);
        write_literal(&mut block, ":path", "/etcdserverpb.KV/Put", true);
        write_literal(&mut block, "te", "trailers", true);
        write_literal(&mut block, "content-type", &long, false);
        write_indexed(&mut block, dynamic_index(0, 2));
        write_indexed(&mut block, dynamic_index(1, 2));
        write_table_size(&mut block, 0);
        let hex: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut decoder = Decoder::default();
        assert_eq!(
            decoded(&mut decoder, &hex).unwrap(),
            [
                ":method: POST",
                ":path: /etcdserverpb.KV/Put",
                "te: trailers",
                &format!("content-type: {long}"),
                ":path: /etcdserverpb.KV/Put",
                "te: trailers",
            ]
        );
        assert_eq!(decoder.bytes, 0);
    }
}
