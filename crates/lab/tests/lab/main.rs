//! The laboratory from outside: its server's answers, and its page in a real browser.

mod api;
mod cap;
mod fake;
mod host;
mod members;
mod page;
mod pages;
mod transfer;
mod verdicts;
