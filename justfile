# Everyday commands; `just --list` shows them. Nothing here is needed to build or test.

# The demo: a live cluster and the laboratory.
demo:
    cargo run --release

# The test command.
test:
    cargo test --workspace

# What must hold before a change lands.
ci:
    bash .ci/run

# Ten thousand simulated runs under faults.
campaign seeds="10000":
    cargo run --release -- sim --protocol raft --nodes 5 --seeds {{seeds}}

# Format and lint.
tidy:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# Licences and advisories of the dependencies, for those who have cargo-deny.
audit:
    cargo deny check
