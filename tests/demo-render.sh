#!/bin/sh
# Twelve frames over three render nodes on this machine, as jobs, and a contact sheet of them at the end.
#
# RENDERER is blender or povray; what is installed, unless said. OUT is where the frames go.
# LOSE_A_NODE=yes kills a node half-way: all twelve come nevertheless.
set -eu
cd "$(dirname "$0")/.."

OUT=${OUT:-target/demo-render}
[ "${RENDERER:-}" ] || for RENDERER in blender povray none; do
    ! command -v $RENDERER >/dev/null 2>&1 || break
done
if [ "$RENDERER" = none ]; then
    echo "neither blender nor povray is installed: \`apt-get install povray\` brings the smaller one" >&2
    exit 1
fi

example=conf/examples/render
cargo build --quiet -p tabane
bin="${CARGO_TARGET_DIR:-target}/debug"
scratch=$(mktemp -d)
pids=

stop() {
    trap '' INT TERM
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

give_up() {
    tail -n 40 "$scratch/log" >&2
    echo "$1; its words are above" >&2
    exit 1
}
start() {
    "$@" >>"$scratch/log" 2>&1 &
    pids="$! $pids"
}

# The example as it is, on ports that are free.
set -- $(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
print(*(socket.getsockname()[1] for socket in held))')
sed "s/:8080/:$1/; s/:9900/:$2/; s/:9001/:$3/; s/:9002/:$4/; s/:9003/:$5/" $example/tabane.yaml >"$scratch/tabane.yaml"
echo "log: {access: false}" >>"$scratch/tabane.yaml"
gateway=127.0.0.1:$1 admin=127.0.0.1:$2

echo "Three nodes render with $RENDERER, one thread each."
for port in "$3" "$4" "$5"; do
    # A process group of its own: what it started goes with it when it is killed, as when a machine loses its power.
    start setsid env TMPDIR="$scratch" python3 $example/render_server.py --renderer "$RENDERER" --threads 1 --port "$port"
    kyoto=$! # The last of them, as in the file.
done
start "$bin/tabane" run -c "$scratch/tabane.yaml"

tries=0
until [ "$("$bin/tabane" nodes --admin "$admin" 2>/dev/null | grep -c ' up ')" = 3 ]; do
    for pid in $pids; do
        kill -0 "$pid" 2>/dev/null || give_up "a node or the gateway ended"
    done
    tries=$((tries + 1))
    [ "$tries" -lt 150 ] || give_up "the three nodes were not up within 30 s"
    sleep 0.2
done

case ${LOSE_A_NODE:-no} in
yes) set -- --lose kyoto "$kyoto" ;;
*) set -- ;;
esac
# Waited for, and not called: so that a signal ends everything at once.
python3 tests/real/render_frames.py "http://$gateway" "$OUT" "$@" &
pids="$! $pids"
wait $!
