//! The web page and the small server that feeds it.
