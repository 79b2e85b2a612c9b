//! A deterministic world for nodes and protocols: script in, trace out.
