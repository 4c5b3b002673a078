#!/bin/sh
# Tries the SDKs of OpenAI, Anthropic and Ollama, unchanged, against the gateway in front of a real llama.cpp server (a tiny model
# made on the spot) and simulated engines. Says what it skips. llm/README.md says what it needs.
set -eu
cd "$(dirname "$0")/../.."

skip() {
    echo "skipped: SDKs of language models: $1"
    exit 0
}
python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || skip "$python is not installed"

tests=tests/real/llm
venv="${CARGO_TARGET_DIR:-target}/real/llm-venv"
# Filled once for each list of requirements; the list is kept in it when all of them are there.
if ! cmp -s $tests/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    "$python" -m venv "$venv" || skip "$python makes no virtual environment (Debian: apt-get install python3-venv)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r $tests/requirements.txt ||
        skip "the packages of $tests/requirements.txt could not be installed; is there a network?"
    cp $tests/requirements.txt "$venv/requirements.txt"
fi
cargo build --quiet -p tabane -p tabane-sim
exec "$venv/bin/python" $tests/run.py "$@"
