#!/bin/sh
# Tries the gateway with clients that others wrote. Says what it skips.
set -eu
cd "$(dirname "$0")/.."

cargo build --quiet -p tabane -p tabane-sim
bin="${CARGO_TARGET_DIR:-target}/debug"
scratch=$(mktemp -d)
farm=
gateway=

stop() {
    trap '' INT TERM
    for pid in $gateway $farm; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$bin/tabane-sim" farm --port 18301 >"$scratch/log" 2>&1 &
farm=$!
"$bin/tabane" quick --listen 127.0.0.1:18300 --admin 127.0.0.1:18399 --slots 4 \
    --to http://127.0.0.1:18301 --to http://127.0.0.1:18302 >>"$scratch/log" 2>&1 &
gateway=$!

give_up() {
    cat "$scratch/log" >&2
    echo "$1; its words are above" >&2
    exit 1
}
alive() {
    kill -0 "$farm" 2>/dev/null || give_up "the simulated nodes did not start"
    kill -0 "$gateway" 2>/dev/null || give_up "the gateway did not start"
}
tries=0
until "$bin/tabane" healthcheck --admin 127.0.0.1:18399 >/dev/null 2>&1; do
    alive
    tries=$((tries + 1))
    [ "$tries" -lt 150 ] || give_up "the gateway was not ready within 30 s"
    sleep 0.2
done
alive

url=http://127.0.0.1:18300
passed=0
failed=0
skipped=0
check() {
    if "$@" >"$scratch/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok: $what"
    else
        failed=$((failed + 1))
        echo "FAILED: $what"
        sed 's/^/    /' "$scratch/said"
    fi
}
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1"
}

if command -v curl >/dev/null 2>&1; then
    head -c 3000000 /dev/urandom >"$scratch/body"
    echoed="--data-binary @$scratch/body $url/echo | cmp - $scratch/body"
    what="curl sends 3 MB, chunked, and gets them back"
    check sh -c "curl -sSf -H 'Transfer-Encoding: chunked' $echoed"
    what="curl waits for 100-continue"
    check sh -c "curl -sSf -H 'Expect: 100-continue' $echoed"
    what="curl speaks HTTP/2 with prior knowledge"
    check sh -c "curl -sSf --http2-prior-knowledge $echoed"
    what="curl speaks HTTP/1.0"
    check curl -sSf --http1.0 "$url/"
else
    skip "curl is not installed"
fi
if python3 -c 'import websockets' 2>/dev/null; then
    what="Python's websockets talks through the gateway"
    check python3 -c "
import asyncio, websockets
async def talk():
    async with websockets.connect('ws://127.0.0.1:18300/ws') as socket:
        await socket.recv()
        for size in (0, 1, 70000, 900000):
            await socket.send(b'x' * size)
            assert await socket.recv() == b'x' * size
asyncio.run(talk())"
else
    skip "Python's websockets is not installed (pip install websockets)"
fi
if command -v wrk >/dev/null 2>&1; then
    what="wrk gets no error in three seconds"
    check sh -c "! wrk -t1 -c16 -d3 $url/slow?ms=1 | grep -E 'Non-2xx|Socket errors'"
else
    skip "wrk is not installed"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
