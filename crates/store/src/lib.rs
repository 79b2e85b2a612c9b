//! The replicated key-value state machine: multi-version keys with etcd's semantics, pure.
