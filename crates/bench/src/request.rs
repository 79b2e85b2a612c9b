//! The requests, encoded once: header fields, and message bodies in which only the key and the value
//! change from one operation to the next.

use serde::Serialize;

use crate::Options;
use crate::hpack;

/// What one operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `KV.Put` of one key.
    Put,
    /// `KV.Range` of one key, linearizable.
    Get,
    /// `KV.Range` of one key from whatever the asked member has.
    SerializableGet,
}

impl Operation {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Put => "/etcdserverpb.KV/Put",
            Self::Get | Self::SerializableGet => "/etcdserverpb.KV/Range",
        }
    }
}

/// gRPC's prefix of a message: one byte for compression, four for the length.
const MESSAGE_PREFIX_BYTES: usize = 5;
/// Values are cut from a pool of noise at changing places, so that no server gains by compressing one
/// value against the last; the pool exceeds a value by this much.
const VALUE_PLACES: usize = 64 * 1024;

/// A small, fast, seeded generator (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, but not including, `bound`; the bias is below 2^-32 for the bounds in use.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Draws operations and writes their bodies.
#[derive(Debug)]
pub(crate) struct Requests {
    random: Random,
    key_space: u64,
    key_bytes: usize,
    value_bytes: usize,
    puts: u64,
    gets: u64,
    weights: u64,
    put: Template,
    get: Template,
    serializable_get: Template,
    noise: Vec<u8>,
}

/// A body up to (for a put) its value, with the place of the key.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    key_at: usize,
}

impl Requests {
    pub(crate) fn new(options: &Options) -> Self {
        let mut random = Random::new(options.seed);
        let noise = (0..options.value_bytes + VALUE_PLACES).map(|_| random.next() as u8).collect();
        let mix = options.mix;
        Self {
            random,
            key_space: options.key_space,
            key_bytes: options.key_bytes,
            value_bytes: options.value_bytes,
            puts: u64::from(mix.put),
            gets: u64::from(mix.get),
            weights: u64::from(mix.put) + u64::from(mix.get) + u64::from(mix.serializable_get),
            put: Template::put(options.key_bytes, options.value_bytes),
            get: Template::range(options.key_bytes, false),
            serializable_get: Template::range(options.key_bytes, true),
            noise,
        }
    }

    /// The next operation of the mix.
    pub(crate) fn draw(&mut self) -> Operation {
        if self.puts == self.weights {
            return Operation::Put;
        }
        let drawn = self.random.below(self.weights);
        if drawn < self.puts {
            Operation::Put
        } else if drawn < self.puts + self.gets {
            Operation::Get
        } else {
            Operation::SerializableGet
        }
    }

    /// How long the body of such an operation is, prefix included.
    pub(crate) fn body_bytes(&self, operation: Operation) -> usize {
        match operation {
            Operation::Put => self.put.bytes.len() + self.value_bytes,
            Operation::Get => self.get.bytes.len(),
            Operation::SerializableGet => self.serializable_get.bytes.len(),
        }
    }

    /// Appends a body with a key and a value drawn at random.
    pub(crate) fn write_body(&mut self, operation: Operation, out: &mut Vec<u8>) {
        let template = match operation {
            Operation::Put => &self.put,
            Operation::Get => &self.get,
            Operation::SerializableGet => &self.serializable_get,
        };
        let key_at = out.len() + template.key_at;
        out.extend_from_slice(&template.bytes);
        let mut digits = self.random.below(self.key_space);
        for byte in out[key_at..key_at + self.key_bytes].iter_mut().rev() {
            if digits == 0 {
                break;
            }
            *byte = b'0' + (digits % 10) as u8;
            digits /= 10;
        }
        if operation == Operation::Put {
            let place = self.random.below(VALUE_PLACES as u64) as usize;
            out.extend_from_slice(&self.noise[place..place + self.value_bytes]);
        }
    }
}

impl Template {
    fn put(key_bytes: usize, value_bytes: usize) -> Self {
        let mut message = Vec::new();
        let key_at = write_key(&mut message, key_bytes);
        // PutRequest.value = 2; the bytes themselves follow the template.
        message.push(2 << 3 | 2);
        write_varint(&mut message, value_bytes);
        Self::framed(&message, key_at, value_bytes)
    }

    fn range(key_bytes: usize, serializable: bool) -> Self {
        let mut message = Vec::new();
        let key_at = write_key(&mut message, key_bytes);
        if serializable {
            // RangeRequest.serializable = 7.
            message.extend_from_slice(&[7 << 3, 1]);
        }
        Self::framed(&message, key_at, 0)
    }

    fn framed(message: &[u8], key_at: usize, bytes_to_follow: usize) -> Self {
        let length = u32::try_from(message.len() + bytes_to_follow).expect("options bound the value");
        let mut bytes = vec![0];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(message);
        Self { bytes, key_at: MESSAGE_PREFIX_BYTES + key_at }
    }
}

/// Appends field 1, the key, as zeros, and returns where it begins.
fn write_key(message: &mut Vec<u8>, key_bytes: usize) -> usize {
    message.push(1 << 3 | 2);
    write_varint(message, key_bytes);
    let key_at = message.len();
    message.resize(key_at + key_bytes, b'0');
    key_at
}

fn write_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The header blocks of one connection's requests. Fields go out as text the first time and as indices
/// from then on, as every gRPC client does, so that the server decodes what it would in production.
#[derive(Debug)]
pub(crate) struct RequestHeaders {
    fields: [Field; 5],
    /// How many entries the peer's table was given.
    inserted: usize,
    /// Whether the peer keeps a dynamic table that is large enough for all five fields.
    remember: bool,
    /// Whether the next block has to begin with the announcement of an empty table.
    announce_empty: bool,
    /// The blocks of `Put` and `Range`, once they no longer change.
    blocks: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    value: String,
    /// As which entry, from 0, it was inserted into the peer's table.
    place: Option<usize>,
}

const METHOD_POST_INDEX: usize = 3;
const SCHEME_HTTP_INDEX: usize = 6;

impl RequestHeaders {
    pub(crate) fn new(authority: &str) -> Self {
        let field = |name, value: &str| Field { name, value: value.to_owned(), place: None };
        Self {
            fields: [
                field(":path", Operation::Put.path()),
                field(":path", Operation::Get.path()),
                field(":authority", authority),
                field("content-type", "application/grpc"),
                field("te", "trailers"),
            ],
            inserted: 0,
            remember: true,
            announce_empty: false,
            blocks: [Vec::new(), Vec::new()],
        }
    }

    /// The peer's table holds at most `bytes_max` from now on. One that is too small for our few fields
    /// is given up for the rest of the connection.
    pub(crate) fn limit_table(&mut self, bytes_max: usize) {
        let needed: usize =
            self.fields.iter().map(|field| hpack::entry_bytes(field.name, &field.value)).sum();
        if bytes_max < needed && self.remember {
            self.remember = false;
            self.announce_empty = true;
            self.blocks = [Vec::new(), Vec::new()];
            for field in &mut self.fields {
                field.place = None;
            }
        }
    }

    /// Appends the complete header block of the next request.
    pub(crate) fn write_block(&mut self, operation: Operation, out: &mut Vec<u8>) {
        if self.announce_empty {
            hpack::write_table_size(out, 0);
            self.announce_empty = false;
        }
        let path = usize::from(operation != Operation::Put);
        if !self.blocks[path].is_empty() {
            out.extend_from_slice(&self.blocks[path]);
            return;
        }
        let start = out.len();
        let inserted_before = self.inserted;
        hpack::write_indexed(out, METHOD_POST_INDEX);
        hpack::write_indexed(out, SCHEME_HTTP_INDEX);
        for which in [path, 2, 3, 4] {
            let field = &mut self.fields[which];
            if let Some(place) = field.place {
                hpack::write_indexed(out, hpack::dynamic_index(place, self.inserted));
                continue;
            }
            hpack::write_literal(out, field.name, &field.value, self.remember);
            if self.remember {
                field.place = Some(self.inserted);
                self.inserted += 1;
            }
        }
        if self.inserted == inserted_before {
            self.blocks[path] = out[start..].to_vec();
        } else {
            // New entries move the indices of all others.
            self.blocks = [Vec::new(), Vec::new()];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mix;
    use crate::hpack::Decoder;

    fn body(requests: &mut Requests, operation: Operation) -> Vec<u8> {
        let mut out = b"before".to_vec();
        requests.write_body(operation, &mut out);
        assert_eq!(out.len() - 6, requests.body_bytes(operation));
        out.split_off(6)
    }

    fn requests(mix: Mix) -> Requests {
        Requests::new(&Options { key_space: 1000, value_bytes: 300, mix, ..Options::default() })
    }

    #[test]
    fn a_put_is_the_protobuf_that_etcd_expects() {
        let body = body(&mut requests(Mix::default()), Operation::Put);
        // Prefix, key = 1 (8 bytes), value = 2 (300 bytes, a length of two bytes).
        assert_eq!(body[..7], [0, 0, 0, 1, 57, 0x0a, 8]);
        assert_eq!(&body[7..12], b"00000");
        assert!(body[12..15].iter().all(u8::is_ascii_digit));
        assert_eq!(body[15..18], [0x12, 0xac, 0x02]);
        assert_eq!(body.len(), 18 + 300);
    }

    #[test]
    fn gets_differ_in_the_serializable_flag_alone() {
        let mut requests = requests(Mix::default());
        assert_eq!(body(&mut requests, Operation::Get)[..7], [0, 0, 0, 0, 10, 0x0a, 8]);
        let serializable = body(&mut requests, Operation::SerializableGet);
        assert_eq!(serializable[..7], [0, 0, 0, 0, 12, 0x0a, 8]);
        assert_eq!(serializable[15..], [0x38, 1]);
    }

    #[test]
    fn keys_cover_the_space_and_stay_inside_it() {
        let mut requests = requests(Mix::default());
        let keys: std::collections::BTreeSet<Vec<u8>> =
            (0..20_000).map(|_| body(&mut requests, Operation::Get)[7..15].to_vec()).collect();
        assert_eq!(keys.len(), 1000);
        assert_eq!(keys.first().unwrap(), b"00000000");
        assert_eq!(keys.last().unwrap(), b"00000999");
    }

    #[test]
    fn the_mix_follows_its_weights() {
        let mut requests = requests(Mix { put: 1, get: 2, serializable_get: 1 });
        let mut drawn = [0_u32; 3];
        for _ in 0..40_000 {
            drawn[requests.draw() as usize] += 1;
        }
        assert!((9_000..11_000).contains(&drawn[0]), "{drawn:?}");
        assert!((19_000..21_000).contains(&drawn[1]), "{drawn:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let mix = Mix { put: 1, get: 1, serializable_get: 0 };
        let (mut one, mut two) = (requests(mix), requests(mix));
        for _ in 0..100 {
            let operation = one.draw();
            assert_eq!(operation, two.draw());
            assert_eq!(body(&mut one, operation), body(&mut two, operation));
        }
    }

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Vec<String> {
        let mut fields = Vec::new();
        decoder
            .decode(block, &mut |name, value| {
                fields.push(format!("{} {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            })
            .unwrap();
        fields
    }

    fn expected(path: &str) -> Vec<String> {
        [
            ":method POST",
            ":scheme http",
            &format!(":path {path}"),
            ":authority localhost:2379",
            "content-type application/grpc",
            "te trailers",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn headers_shrink_to_six_indices_and_stay_readable_whatever_the_order() {
        let mut headers = RequestHeaders::new("localhost:2379");
        let mut decoder = Decoder::default();
        let operations = [
            Operation::Put,
            Operation::Put,
            Operation::Get,
            Operation::Put,
            Operation::SerializableGet,
            Operation::Put,
        ];
        for operation in operations {
            let mut block = Vec::new();
            headers.write_block(operation, &mut block);
            assert_eq!(fields(&mut decoder, &block), expected(operation.path()));
        }
        let mut block = Vec::new();
        headers.write_block(Operation::Put, &mut block);
        assert_eq!(block.len(), 6);
    }

    #[test]
    fn a_peer_without_a_table_gets_text_and_is_told_once() {
        let mut headers = RequestHeaders::new("localhost:2379");
        let mut decoder = Decoder::default();
        headers.write_block(Operation::Put, &mut Vec::new());
        headers.limit_table(0);
        for round in 0..3 {
            let mut block = Vec::new();
            headers.write_block(Operation::Put, &mut block);
            assert_eq!(block[0] == 0x20, round == 0, "the announcement belongs to the first block only");
            assert_eq!(fields(&mut decoder, &block), expected(Operation::Put.path()));
        }
    }
}
