#!/usr/bin/env bash
# Everything that must pass: what `make test` and .ci/run do. One profile, one target folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
# The tests of docs/format.md run a Python that has `cryptography` and `argon2-cffi`.
export STRONGROOM_TEST_PYTHON=$PWD/.test-env/bin/python

python_tests() {
    .test-env/bin/python -m pytest -q bindings/python/tests tests/python
}

step "set-up" scripts/setup-test.sh
step "format" cargo fmt --all --check
step "lints" cargo clippy --release --workspace --all-targets -- -D warnings
# All at once, so that nothing is built twice with other features of a dependency.
step "build" cargo build --release --workspace --all-targets
step "header and exports" "$release/header" --check
step "Rust tests" cargo test --release --workspace
step "Python, command, C examples and README" python_tests
printf '\nall tests passed in %d s\n' "$SECONDS"
