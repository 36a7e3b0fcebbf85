# just          list of recipes
default:
    @just --list

# quick tests, about three minutes on two cores
test:
    tests/run

# what CI runs
ci:
    .ci/run

# everything, as long as it takes
soak:
    tests/run soak

# format, lints, quick tests, licences
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    tests/run
    cargo deny check

# manual pages, into target/man
man:
    cargo run -p mille -- __man target/man

# side by side with bubblewrap, runc and tar
bench:
    cargo run --release -p mille-benches

# side by side with the kernel's overlayfs, fuse-overlayfs and a plain directory, workload by workload
compare *ARGS:
    cargo build --release -p millefs -p mille-benches
    target/release/mille-benches compare {{ARGS}}
