//! The real world for nodes: disk, sockets and client APIs; also a library.
