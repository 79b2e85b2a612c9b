//! The `synod` binary: one command line over the whole house.

fn main() {}
