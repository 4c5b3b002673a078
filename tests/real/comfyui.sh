#!/bin/sh
# Tries ComfyUI's real clients (its example scripts, its front end in Chromium) against real ComfyUI servers, alone and
# behind the gateway. Says what it skips. README.md beside run.py says what it needs.
set -eu
cd "$(dirname "$0")/../.."

skip() {
    echo "skipped: ComfyUI's real clients: $1"
    exit 0
}
[ -n "${COMFYUI_DIR:-}" ] || skip "COMFYUI_DIR does not say where a checkout of ComfyUI is"
python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || skip "$python is not installed"

tests=tests/real/comfyui
venv="${CARGO_TARGET_DIR:-target}/real/venv"
# Filled once for each list of requirements; the list is kept in it when all of them are there.
if ! cmp -s $tests/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    "$python" -m venv "$venv" || skip "$python makes no virtual environment (Debian: apt-get install python3-venv)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r $tests/requirements.txt ||
        skip "the packages of $tests/requirements.txt could not be installed; is there a network?"
    cp $tests/requirements.txt "$venv/requirements.txt"
fi
[ -n "${TABANE:-}" ] || cargo build --quiet -p tabane
exec "$venv/bin/python" $tests/run.py "$@"
