//! Why something was not done, and whose doing that was.

use alloc::borrow::Cow;
use core::fmt;

/// gRPC's status codes, which every refusal carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Code {
    /// The caller withdrew the request.
    Cancelled = 1,
    /// No other code fits.
    Unknown = 2,
    /// The request is wrong whatever the state of the store.
    InvalidArgument = 3,
    /// Time ran out; the request may have taken effect.
    DeadlineExceeded = 4,
    /// What the request needs does not exist.
    NotFound = 5,
    /// What the request would make exists already.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The store is not in the state that the request needs.
    FailedPrecondition = 9,
    /// The request was overtaken by another one.
    Aborted = 10,
    /// The request names a revision that is gone or is still to come.
    OutOfRange = 11,
    /// This server does not offer that.
    Unimplemented = 12,
    /// A defect in the server.
    Internal = 13,
    /// Not now; try again.
    Unavailable = 14,
    /// Stored data are damaged.
    DataLoss = 15,
    /// The caller has not said who it is.
    Unauthenticated = 16,
}

impl Code {
    /// The code's number in gRPC, 1 to 16.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code with this number; none for 0, which is success, and above 16.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Cancelled,
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => return None,
        })
    }
}

/// The client's request was not carried out, and nothing was changed: the client's doing, or a
/// limit's. Codes and messages are etcd's where etcd has them, since its clients match on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal.
    pub code: Code,
    /// What was wrong and, where etcd has no fixed text, what to do about it.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a fixed or a composed text.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    const fn fixed(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }

    /// A request without a key.
    pub const EMPTY_KEY: Self = Self::fixed(Code::InvalidArgument, "etcdserver: key is not provided");
    /// A put that keeps the value or the lease of a key that does not exist; also an operation
    /// in a transaction that says nothing.
    pub const KEY_NOT_FOUND: Self = Self::fixed(Code::InvalidArgument, "etcdserver: key not found");
    /// A put that both gives a value and keeps the old one.
    pub const VALUE_PROVIDED: Self = Self::fixed(Code::InvalidArgument, "etcdserver: value is provided");
    /// A put that both names a lease and keeps the old one.
    pub const LEASE_PROVIDED: Self = Self::fixed(Code::InvalidArgument, "etcdserver: lease is provided");
    /// A transaction with more operations than [`Limits::txn_ops_max`](crate::Limits).
    pub const TOO_MANY_OPS: Self =
        Self::fixed(Code::InvalidArgument, "etcdserver: too many operations in txn request");
    /// A transaction that may put one key twice, or put it and delete it.
    pub const DUPLICATE_KEY: Self =
        Self::fixed(Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
    /// A sort order or sort target with an unknown number.
    pub const INVALID_SORT_OPTION: Self =
        Self::fixed(Code::InvalidArgument, "etcdserver: invalid sort option");
    /// A request above [`Limits::request_bytes_max`](crate::Limits).
    pub const REQUEST_TOO_LARGE: Self =
        Self::fixed(Code::InvalidArgument, "etcdserver: request is too large");
    /// A read or a compaction at a revision whose history was forgotten.
    pub const COMPACTED: Self =
        Self::fixed(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    /// A read or a compaction at a revision that is still to come.
    pub const FUTURE_REVISION: Self =
        Self::fixed(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    /// A put that names a lease that does not exist.
    pub const LEASE_NOT_FOUND: Self = Self::fixed(Code::NotFound, "etcdserver: requested lease not found");
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Refusal {}

/// What can go wrong in the store; `E` is the ordered map's own error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The client's request is refused; nothing was changed, and the store goes on.
    Refused(Refusal),
    /// The map below failed. The store in memory may now differ from what the map holds: drop it
    /// and open it again, or stop the member.
    Map(E),
    /// The map holds something that the store did not write. The member must stop, and get its
    /// state from another one.
    Corrupt {
        /// The table in which it was found.
        table: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl<E> Error<E> {
    /// The refusal, if the error is the client's alone.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Map(_) | Self::Corrupt { .. } => None,
        }
    }
}

impl<E> From<Refusal> for Error<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Map(error) => write!(f, "the map below the store failed: {error}"),
            Self::Corrupt { table, what } => write!(
                f,
                "the stored table of {table} is damaged ({what}): stop this member and let it copy the state \
                 of another one"
            ),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for Error<E> {}
