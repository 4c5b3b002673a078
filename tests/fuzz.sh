#!/bin/sh
# Runs every fuzz target for FUZZ_SECONDS (30 each), or only those that are named. Says what is missing.
#
# What a target finds is in fuzz/artifacts/; `cargo fuzz run TARGET FILE` shows it again. Bounds are generous: a
# case that takes 20 s or 2 GB is a finding too. CARGO_FUZZ_FLAGS may say `-s none` where there is no sanitizer.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${FUZZ_SECONDS:-30}

if ! rustup run nightly rustc --version >/dev/null 2>&1; then
    echo "fuzzing needs the nightly compiler, whose coverage it steers by: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz" >&2
    cargo install --quiet --locked cargo-fuzz || {
        echo "cargo-fuzz is missing and could not be installed: cargo install cargo-fuzz" >&2
        exit 1
    }
fi

[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
[ $# -gt 0 ] || { echo "no fuzz target was found" >&2; exit 1; }
failed=
for target in "$@"; do
    # What was learned is kept in corpus/; what it starts from is read beside it.
    mkdir -p "corpus/$target"
    case $target in
        config) seeds="../conf ../conf/examples ../tests/conf/good ../tests/conf/bad" ;;
        *) seeds="seeds/$target" ;;
    esac
    echo "== $target, $seconds s"
    # shellcheck disable=SC2086
    cargo +nightly fuzz run ${CARGO_FUZZ_FLAGS:-} "$target" "corpus/$target" $seeds -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 || failed="$failed $target"
done
[ -z "$failed" ] || { echo "failed:$failed; see fuzz/artifacts/" >&2; exit 1; }
echo "$# targets ran and found nothing"
