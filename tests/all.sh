#!/bin/sh
# Runs every test of every crate, doctests among them, and says in one last line how many there were.
set -eu
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ cargo test --workspace --no-fail-fast && echo "all crates: ok" || echo "some crates: failed"; } 2>&1 | tee "$log"
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
grep -q '^all crates: ok$' "$log"
