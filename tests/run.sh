#!/bin/sh
# Starts four simulated GPU nodes and the gateway, says what to try, and ends everything on Ctrl-C.
set -eu
cd "$(dirname "$0")/.."

cargo build --quiet -p tabane -p tabane-sim
bin="${CARGO_TARGET_DIR:-target}/debug"
farm=
gateway=

stop() {
    trap '' INT TERM
    [ -z "$gateway" ] || kill "$gateway" 2>/dev/null || true
    [ -z "$gateway" ] || wait "$gateway" 2>/dev/null || true
    [ -z "$farm" ] || kill "$farm" 2>/dev/null || true
    [ -z "$farm" ] || wait "$farm" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$bin/tabane-sim" farm &
farm=$!
"$bin/tabane" run -c conf/examples/simulated.yaml &
gateway=$!

tries=0
up() {
    "$bin/tabane" nodes -c conf/examples/simulated.yaml 2>/dev/null | grep -c ' up ' || true
}
until [ "$(up)" = 4 ]; do
    kill -0 "$farm" 2>/dev/null || { echo "the simulated nodes did not start; see above" >&2; exit 1; }
    kill -0 "$gateway" 2>/dev/null || { echo "the gateway did not start; see above" >&2; exit 1; }
    tries=$((tries + 1))
    [ "$tries" -lt 150 ] || { echo "the four nodes were not all up within 30 s" >&2; exit 1; }
    sleep 0.2
done

cat <<'TEXT'

tabane is up: http://127.0.0.1:8080 stands for four simulated GPU nodes. Try:

  curl http://127.0.0.1:8080/                       # the node that answered names itself
  for i in 1 2 3 4 5 6 7 8 9; do curl -s http://127.0.0.1:8080/ & done; wait
  curl http://127.0.0.1:9900/api/v1/nodes           # what the operator sees

Edit conf/examples/simulated.yaml while it runs. Ctrl-C ends everything.

TEXT
wait "$gateway"
