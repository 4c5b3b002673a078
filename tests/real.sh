#!/bin/sh
# Tries the gateway with clients and servers that others wrote. Says what it skips.
#
# PYTHON names a Python that has what is to be tried: `pip install websockets gradio gradio_client cog`.
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
# Cog starts the `python` that it finds.
case $PYTHON in */*) PATH=$(dirname "$PYTHON"):$PATH ;; esac
PATH=$PATH:/usr/sbin

cargo build --quiet -p tabane -p tabane-sim
bin="${CARGO_TARGET_DIR:-target}/debug"
real=$PWD/tests/real
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

start() {
    "$@" >>"$scratch/log" 2>&1 &
    pids="$! $pids"
}
give_up() {
    cat "$scratch/log" >&2
    echo "$1; its words are above" >&2
    exit 1
}
# until_ready WHAT COMMAND…: tries the command for a minute.
until_ready() {
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || give_up "$what was not ready within a minute"
        sleep 0.2
    done
}
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
has() { command -v "$1" >/dev/null 2>&1; }
imports() { "$PYTHON" -c "import $1" 2>/dev/null; }

# --- servers ---------------------------------------------------------------------------------------------

start "$bin/tabane-sim" farm --port 18301
if imports gradio && imports gradio_client; then
    gradio=yes
    start "$PYTHON" "$real/gradio_app.py" a 18311
    start "$PYTHON" "$real/gradio_app.py" b 18312
fi
if imports cog.server.http; then
    cog=yes
    for port in 18321 18322; do
        start env COG_PREDICT_TYPE_STUB="$real/cog_predict.py:Predictor" PORT=$port \
            "$PYTHON" -m cog.server.http --host 127.0.0.1
    done
fi
if has nginx; then
    nginx=yes
    mkdir "$scratch/www"
    head -c 3000000 /dev/urandom >"$scratch/www/model.bin"
    chmod -R a+rX "$scratch"
    cat >"$scratch/nginx.conf" <<TEXT
daemon off;
pid $scratch/nginx.pid;
error_log stderr crit;
events {}
http {
    access_log off;
    client_body_temp_path $scratch/b; proxy_temp_path $scratch/p; fastcgi_temp_path $scratch/f;
    uwsgi_temp_path $scratch/u; scgi_temp_path $scratch/s;
    server { listen 127.0.0.1:18331; listen 127.0.0.1:18332; root $scratch/www; }
}
TEXT
    start nginx -c "$scratch/nginx.conf" -e stderr
fi

# --- the gateway -----------------------------------------------------------------------------------------

cat >"$scratch/tabane.yaml" <<'TEXT'
listen:
  - {address: 127.0.0.1:18300, service: any}
  - {address: 127.0.0.1:18310, service: gradio}
  - {address: 127.0.0.1:18320, service: cog}
  - {address: 127.0.0.1:18330, service: files}
admin: {address: 127.0.0.1:18399}
data_dir: data
limits: {client_head: 5s, client_read: 5s, client_write: 5s}
services:
  any:
    kind: http
    pool: [{url: http://127.0.0.1:18301, slots: 400}, {url: http://127.0.0.1:18302, slots: 400}]
    cors: "*"
  gradio:
    kind: {http: {probe: /config}}
    pool: [{url: http://127.0.0.1:18311, slots: 50}, {url: http://127.0.0.1:18312, slots: 50}]
    policy: {hash: {key: [{query: session_hash}, {json: session_hash}], strict: true}}
  cog:
    kind: {http: {probe: /health-check}}
    pool: [{url: http://127.0.0.1:18321, slots: 2}, {url: http://127.0.0.1:18322, slots: 2}]
    policy: first
    retry: {busy: [409]}
  files:
    kind: http
    pool: [{url: http://127.0.0.1:18331, slots: 50}, {url: http://127.0.0.1:18332, slots: 50}]
    policy: round_robin
TEXT
start "$bin/tabane" run -c "$scratch/tabane.yaml"
until_ready "the gateway" "$bin/tabane" healthcheck --admin 127.0.0.1:18399
# up URL…: whether the gateway has found these endpoints well.
up() {
    "$bin/tabane" nodes --admin 127.0.0.1:18399 >"$scratch/nodes"
    for port in "$@"; do
        grep -E "127\.0\.0\.1:$port.* up " "$scratch/nodes" || return 1
    done
}
until_ready "the simulated farm" up 18301 18302

if imports websockets; then
    # It says nothing for longer than any timeout of the gateway or of Pingora's; looked at in the end.
    "$PYTHON" -c "
import asyncio, websockets
async def wait():
    async with websockets.connect('ws://127.0.0.1:18300/ws', ping_interval=None) as socket:
        await socket.recv()
        await asyncio.sleep(130)
        await socket.send('still here')
        assert await socket.recv() == 'still here'
asyncio.run(wait())" >>"$scratch/log" 2>&1 &
    idle=$!
fi

# --- clients ---------------------------------------------------------------------------------------------

url=http://127.0.0.1:18300
if has curl; then
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
    what="curl sends a body with GET"
    check sh -c "curl -sSf -X GET $echoed"
else
    skip "curl is not installed"
fi
if has curl; then
    job() {
        place=$(curl -sSf -i -H 'Prefer: respond-async' --data-binary "@$scratch/body" "$url/echo" | tr -d '\r' |
            sed -n 's/^location: //Ip')
        curl -sSf -H 'Prefer: wait=30' "$url$place" && curl -sSf -H 'Prefer: wait=30' "$url$place/result" | cmp - "$scratch/body" &&
            curl -sSf -N "$url$place/events" | grep '^event: finished'
    }
    what="curl hands a job of 3 MB in, waits for it and gets its result"
    check job
fi
for client in python node chromium; do
    what="the example of JOBS.md runs in $client"
    case $client in
    python) if imports requests; then check "$PYTHON" "$real/jobs_clients.py" python $url; else skip "Python's requests is not installed"; fi ;;
    *) if has $client && has "$PYTHON"; then check "$PYTHON" "$real/jobs_clients.py" $client $url; else skip "$client is not installed"; fi ;;
    esac
done
if imports websockets; then
    what="Python's websockets talks through the gateway"
    check "$PYTHON" -c "
import asyncio, websockets
async def talk():
    async with websockets.connect('ws://127.0.0.1:18300/ws') as socket:
        await socket.recv()
        for size in (0, 1, 70000, 900000):
            await socket.send(b'x' * size)
            assert await socket.recv() == b'x' * size
asyncio.run(talk())"
else
    skip "Python's websockets is not installed"
fi
if has wrk; then
    what="wrk gets no error in three seconds"
    check sh -c "! wrk -t1 -c16 -d3 $url/slow?ms=1 | grep -E 'Non-2xx|Socket errors'"
else
    skip "wrk is not installed"
fi
if has slowhttptest && has curl; then
    # slow HOW… URL: 300 clients, of whom none may be left long before the attack would be over.
    slow() {
        slowhttptest -c 300 -r 150 -l 60 "$@" >/dev/null 2>&1 &
        attack=$!
        many() { [ "$(open_now)" -gt 250 ]; }
        few() { [ "$(open_now)" -lt 5 ]; }
        open_now() { curl -sS http://127.0.0.1:18399/metrics | sed -n 's/^tabane_connections_open //p'; }
        wait_for() { for _ in $(seq 150); do "$1" && return 0; sleep 0.2; done; return 1; }
        cut=no
        wait_for many && wait_for few && curl -sSf -m 5 $url/ && cut=yes
        # It ends by itself when nobody is left.
        kill "$attack" 2>/dev/null || true
        wait "$attack" || true
        [ $cut = yes ]
    }
    what="300 clients whose heads never end are cut, and others go on"
    check slow -H -i 2 -u $url/
    what="300 clients whose bodies never end are cut, and others go on"
    check slow -B -i 2 -s 8192 -u $url/
    what="300 clients who hardly read are cut, and others go on"
    check slow -X -w 10 -y 20 -n 5 -z 8 -u $url/bytes/20000000
else
    skip "slowhttptest (or curl) is not installed"
fi

# --- servers of others behind it -------------------------------------------------------------------------

if [ "${gradio:-}" ]; then
    until_ready "Gradio" up 18311 18312
    what="8 Gradio clients talk to two Gradio apps, each session with its own"
    check "$PYTHON" "$real/gradio_ask.py" http://127.0.0.1:18310
else
    skip "Gradio is not installed"
fi
if [ "${cog:-}" ] && has curl; then
    until_ready "Cog" up 18321 18322
    predict() {
        curl -sS -i -H 'Content-Type: application/json' -d "{\"input\":{\"seconds\":$2}}" "$1/predictions"
    }
    until_ready "Cog's predictors" sh -c "curl -s http://127.0.0.1:18321/health-check | grep READY &&
        curl -s http://127.0.0.1:18322/health-check | grep READY"
    predict http://127.0.0.1:18321 3 >/dev/null &
    busy=$!
    until_ready "Cog's first prediction" sh -c "curl -s http://127.0.0.1:18321/health-check | grep BUSY"
    passes_over() {
        predict http://127.0.0.1:18320 0.1 >"$scratch/answer"
        cat "$scratch/answer"
        grep -i '^tabane-node: .*18322' "$scratch/answer" && grep '"succeeded"' "$scratch/answer"
    }
    what="a Cog server that predicts for somebody (409) is passed over"
    check passes_over
    wait "$busy"
    what="and asked again when it is free"
    check sh -c "curl -sS -i -H 'Content-Type: application/json' -d '{\"input\":{\"seconds\":0}}' \
        http://127.0.0.1:18320/predictions | grep -i '^tabane-node: .*18321'"
else
    skip "Cog (or curl) is not installed"
fi
if [ "${nginx:-}" ] && has curl; then
    until_ready "nginx" up 18331 18332
    file=http://127.0.0.1:18330/model.bin
    whole="$scratch/www/model.bin"
    what="ranges of a file of nginx's come from two nodes and fit together"
    check sh -c "for r in 0-999999 1000000-1999999 2000000-; do curl -sSf -r \$r $file; done | cmp - $whole"
    what="a download that broke off is resumed"
    check sh -c "head -c 1234567 $whole >$scratch/part && curl -sSf -C - -o $scratch/part $file && cmp $scratch/part $whole"
    what="a file that has not changed is not sent again (304)"
    check sh -c "tag=\$(curl -sSfI $file | tr -d '\r' | sed -n 's/^[Ee][Tt]ag: //p') &&
        [ \"\$(curl -sS -o /dev/null -w '%{http_code}' -H \"If-None-Match: \$tag\" $file)\" = 304 ]"
else
    skip "nginx (or curl) is not installed"
fi
renderer=
for one in blender povray; do
    if has $one; then
        renderer=$one
        what="12 frames sent as jobs to three nodes with $one come back, each its own"
        check env RENDERER=$one OUT="$scratch/$one" sh tests/demo-render.sh
    else
        skip "$one is not installed"
    fi
done
if [ "$renderer" ]; then
    what="all 12 come back although a node dies at one of them"
    check env RENDERER=$renderer LOSE_A_NODE=yes OUT="$scratch/lost" sh tests/demo-render.sh
fi
if [ "${idle:-}" ]; then
    what="an idle WebSocket is open after 130 s"
    check wait "$idle"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
