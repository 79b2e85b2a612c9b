//! Printing to somebody who may have gone: `synod sim cap | head`.
//!
//! The standard library's macros panic when standard output or standard error is a pipe that nobody reads any more. These
//! stand before them in this binary: what nobody reads is dropped, and the command goes on to its verdict, which its exit
//! status tells.

/// As the standard library's, but for a reader who has gone.
macro_rules! print {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($arg)*);
    }};
}

/// As the standard library's, but for a reader who has gone.
macro_rules! println {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}

/// As the standard library's, but for a reader who has gone.
macro_rules! eprintln {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

/// As the standard library's, but for a reader who has gone.
macro_rules! eprint {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($arg)*);
    }};
}
