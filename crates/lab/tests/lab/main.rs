//! The laboratory from outside: its server's answers, and its page in a real browser.

mod api;
mod cap;
mod host;
mod page;
mod pages;
mod transfer;
mod verdicts;
