//! What goes into the replicated log, and what comes out of applying it.
//!
//! A command in the log is one byte that says which request it is, then the request exactly as
//! the client sent it:
//!
//! | byte | then |
//! |---|---|
//! | 1 | `PutRequest` |
//! | 2 | `DeleteRangeRequest` |
//! | 3 | `TxnRequest` |
//! | 4 | `CompactionRequest` |
//!
//! An outcome, as a node remembers it to answer a retry, is one byte and then: 0: the gRPC code
//! in one byte and the message of the refusal; 1 to 4: the response to that kind of request.

use alloc::format;
use alloc::string::String;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse, request_op,
};
use crate::refusal::{Code, Refusal};

/// Which request a command carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CommandKind {
    /// A `PutRequest`.
    Put = 1,
    /// A `DeleteRangeRequest`.
    DeleteRange = 2,
    /// A `TxnRequest`.
    Txn = 3,
    /// A `CompactionRequest`.
    Compact = 4,
}

impl CommandKind {
    /// The byte that a command of this kind begins with.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The kind that this byte stands for.
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Put),
            2 => Some(Self::DeleteRange),
            3 => Some(Self::Txn),
            4 => Some(Self::Compact),
            _ => None,
        }
    }
}

/// A change that a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Write one key.
    Put(PutRequest),
    /// Delete keys.
    DeleteRange(DeleteRangeRequest),
    /// Compare, then do one of two lists of operations.
    Txn(TxnRequest),
    /// Forget history.
    Compact(CompactionRequest),
}

impl Command {
    /// Puts the tag before a client's encoded request: the one copy on the way into the log.
    pub fn wrap(kind: CommandKind, request: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + request.len());
        out.put_u8(kind.tag());
        out.put_slice(request);
        out.freeze()
    }

    /// Reads a command from the log. Keys and values are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// Refuses what is not a command, also messages nested more than 100 deep, protobuf's limit.
    pub fn decode(mut bytes: Bytes) -> Result<Self, Refusal> {
        if bytes.is_empty() {
            return Err(Refusal::new(
                Code::InvalidArgument,
                "the command is empty: it must begin with its kind",
            ));
        }
        let tag = bytes.get_u8();
        let kind = CommandKind::from_tag(tag).ok_or_else(|| {
            Refusal::new(
                Code::InvalidArgument,
                format!(
                    "unknown kind of command {tag}: this member may be older than the one that proposed it; \
                     upgrade it"
                ),
            )
        })?;
        Self::decode_request(kind, bytes)
    }

    /// Reads a client's encoded request. Keys and values are slices of `request`, not copies.
    ///
    /// # Errors
    /// Refuses what is not a message of that kind.
    pub fn decode_request(kind: CommandKind, request: Bytes) -> Result<Self, Refusal> {
        match kind {
            CommandKind::Put => PutRequest::decode(request).map(Self::Put),
            CommandKind::DeleteRange => DeleteRangeRequest::decode(request).map(Self::DeleteRange),
            CommandKind::Txn => TxnRequest::decode(request).map(Self::Txn),
            CommandKind::Compact => CompactionRequest::decode(request).map(Self::Compact),
        }
        .map_err(|error| {
            Refusal::new(Code::InvalidArgument, format!("the request is not a {kind:?} message: {error}"))
        })
    }

    /// The command as it stands in the log, for programs that build commands themselves.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + self.request_len());
        out.put_u8(self.kind().tag());
        match self {
            Self::Put(request) => request.encode(&mut out),
            Self::DeleteRange(request) => request.encode(&mut out),
            Self::Txn(request) => request.encode(&mut out),
            Self::Compact(request) => request.encode(&mut out),
        }
        .expect("a buffer that grows has room");
        out.freeze()
    }

    /// Which request this is.
    pub fn kind(&self) -> CommandKind {
        match self {
            Self::Put(_) => CommandKind::Put,
            Self::DeleteRange(_) => CommandKind::DeleteRange,
            Self::Txn(_) => CommandKind::Txn,
            Self::Compact(_) => CommandKind::Compact,
        }
    }

    /// The length of the encoded request, without the tag, in bytes.
    pub fn request_len(&self) -> usize {
        match self {
            Self::Put(request) => request.encoded_len(),
            Self::DeleteRange(request) => request.encoded_len(),
            Self::Txn(request) => request.encoded_len(),
            Self::Compact(request) => request.encoded_len(),
        }
    }

    /// Whether this only reads, so that it can be answered by [`Store::read_txn`] without the log:
    /// a transaction that writes on neither side.
    ///
    /// [`Store::read_txn`]: crate::Store::read_txn
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Txn(txn) => txn_is_read_only(txn),
            Self::Put(_) | Self::DeleteRange(_) | Self::Compact(_) => false,
        }
    }
}

pub(crate) fn txn_is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|RequestOp { request }| match request {
        None | Some(request_op::Request::RequestRange(_)) => true,
        Some(request_op::Request::RequestTxn(nested)) => txn_is_read_only(nested),
        Some(request_op::Request::RequestPut(_) | request_op::Request::RequestDeleteRange(_)) => false,
    })
}

/// What applying a command gave. The header carries the revision alone; whoever answers the
/// client fills in the rest through [`Response::header_mut`].
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact(CompactionResponse),
}

/// What a command came to: a response, or a refusal that changed nothing. All replicas agree on it.
pub type Outcome = Result<Response, Refusal>;

impl Response {
    /// The header, made if it is not there.
    pub fn header_mut(&mut self) -> &mut ResponseHeader {
        match self {
            Self::Put(response) => &mut response.header,
            Self::DeleteRange(response) => &mut response.header,
            Self::Txn(response) => &mut response.header,
            Self::Compact(response) => &mut response.header,
        }
        .get_or_insert_default()
    }

    /// The length of the encoded message, in bytes.
    pub fn message_len(&self) -> usize {
        match self {
            Self::Put(response) => response.encoded_len(),
            Self::DeleteRange(response) => response.encoded_len(),
            Self::Txn(response) => response.encoded_len(),
            Self::Compact(response) => response.encoded_len(),
        }
    }

    /// Appends the message that the client expects.
    pub fn encode_message(&self, out: &mut BytesMut) {
        match self {
            Self::Put(response) => response.encode(out),
            Self::DeleteRange(response) => response.encode(out),
            Self::Txn(response) => response.encode(out),
            Self::Compact(response) => response.encode(out),
        }
        .expect("a buffer that grows has room");
    }

    /// To which request this answers.
    pub fn kind(&self) -> CommandKind {
        match self {
            Self::Put(_) => CommandKind::Put,
            Self::DeleteRange(_) => CommandKind::DeleteRange,
            Self::Txn(_) => CommandKind::Txn,
            Self::Compact(_) => CommandKind::Compact,
        }
    }
}

const REFUSED: u8 = 0;

/// An outcome in bytes, as this module's documentation describes them.
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    match outcome {
        Ok(response) => {
            let mut out = BytesMut::with_capacity(1 + response.message_len());
            out.put_u8(response.kind().tag());
            response.encode_message(&mut out);
            out.freeze()
        }
        Err(refusal) => {
            let mut out = BytesMut::with_capacity(2 + refusal.message.len());
            out.put_u8(REFUSED);
            out.put_u8(refusal.code.number());
            out.put_slice(refusal.message.as_bytes());
            out.freeze()
        }
    }
}

/// Reads an outcome back; none if these bytes are not one.
pub fn decode_outcome(mut bytes: Bytes) -> Option<Outcome> {
    let tag = bytes.try_get_u8().ok()?;
    if tag == REFUSED {
        let code = Code::from_number(bytes.try_get_u8().ok()?)?;
        let message = String::from_utf8(bytes.into()).ok()?;
        return Some(Err(Refusal::new(code, message)));
    }
    let response = match CommandKind::from_tag(tag)? {
        CommandKind::Put => PutResponse::decode(bytes).map(Response::Put),
        CommandKind::DeleteRange => DeleteRangeResponse::decode(bytes).map(Response::DeleteRange),
        CommandKind::Txn => TxnResponse::decode(bytes).map(Response::Txn),
        CommandKind::Compact => CompactionResponse::decode(bytes).map(Response::Compact),
    };
    response.ok().map(Ok)
}
