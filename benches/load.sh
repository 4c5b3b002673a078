#!/bin/sh
# Runs the load benches on what ships: `compare` beside the peers that are installed, `comfyui`, `jobs`, `schedule`, or `storm`.
set -eu
cd "$(dirname "$0")/.."

there() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]
}
if [ "$1" = compare ]; then
    for peer in nginx haproxy; do
        there $peer && continue
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            echo "installing $peer, to measure beside it" >&2
            # Installed, not started.
            RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $peer >/dev/null 2>&1 || true
        fi
        there $peer || echo "$peer is not installed (Debian, Ubuntu: apt-get install $peer): its column is left out" >&2
    done
fi
# Two thousand connections, each with two ends here.
ulimit -n 20000 2>/dev/null || echo "only $(ulimit -n) files may be open (ulimit -n); the bench wants 20000" >&2

cargo build --profile dist -p tabane -p tabane-load
bin="${CARGO_TARGET_DIR:-target}/dist"
exec "$bin/tabane-load" "$@" --tabane "$bin/tabane"
