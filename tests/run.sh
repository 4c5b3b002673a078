#!/bin/sh
# Starts four simulated GPU nodes and the gateway, says what to try, and ends everything on Ctrl-C.
set -eu
cd "$(dirname "$0")/.."

file=conf/examples/simulated.yaml
cargo build --quiet -p tabane -p tabane-sim
bin="${CARGO_TARGET_DIR:-target}/debug"
farm=
gateway=

stop() {
    trap '' INT TERM
    for pid in $gateway $farm; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

give_up() {
    echo "$1; see above" >&2
    exit 1
}
alive() {
    kill -0 "$farm" 2>/dev/null || give_up "the simulated nodes did not start"
    kill -0 "$gateway" 2>/dev/null || give_up "the gateway did not start"
}
all_up() {
    [ "$("$bin/tabane" nodes -c $file 2>/dev/null | grep -c ' up ')" = 4 ]
}

"$bin/tabane-sim" farm &
farm=$!
"$bin/tabane" run -c $file &
gateway=$!

tries=0
until all_up; do
    alive
    tries=$((tries + 1))
    [ "$tries" -lt 150 ] || give_up "the four nodes were not all up within 30 s"
    sleep 0.2
done
# A gateway and nodes that were there before would be up, too: ours are then about to end over the taken ports.
sleep 0.2
alive

cat <<'TEXT'

tabane is up: http://127.0.0.1:8080 stands for four simulated GPU nodes. Try:

  curl http://127.0.0.1:8080/                       # the node that answered names itself
  for i in 1 2 3 4 5 6 7 8 9; do curl -s http://127.0.0.1:8080/ & done; wait
  curl -i -H 'Prefer: respond-async' -d x http://127.0.0.1:8080/slow?ms=5000    # a job: 202, and where it is
  curl http://127.0.0.1:9900/api/v1/nodes           # what the operator sees

Edit conf/examples/simulated.yaml while it runs. Ctrl-C ends everything.

TEXT
wait "$gateway"
