#!/bin/sh
# Installs what a build needs and is not there; says nothing when all is there.
set -eu

need() {
    command -v "$1" >/dev/null 2>&1 || {
        echo "tabane needs \`$1\` to build: $2" >&2
        exit 1
    }
}

need cargo "install Rust (https://rustup.rs)"
command -v cc >/dev/null 2>&1 || need gcc "install a C compiler (Debian, Ubuntu: apt-get install build-essential)"

# Pingora's compression library is built with cmake.
if ! command -v cmake >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing cmake, which Pingora needs to build" >&2
        apt-get update -qq >/dev/null 2>&1 || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq cmake >/dev/null
    fi
    need cmake "install it (Debian, Ubuntu: apt-get install cmake; macOS: brew install cmake; anywhere: pip install cmake)"
fi
