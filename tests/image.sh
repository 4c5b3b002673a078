#!/bin/sh
# Builds the container image with whichever of docker and podman there is.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n '/^\[workspace.package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)

# Podman's own format knows no HEALTHCHECK.
if command -v docker >/dev/null 2>&1; then
    tool="docker build"
elif command -v podman >/dev/null 2>&1; then
    tool="podman build --format docker"
else
    echo "tabane needs \`docker\` or \`podman\` to build its image: install one of them" >&2
    exit 1
fi
# The Dockerfile mounts caches, which docker's old builder does not know.
export DOCKER_BUILDKIT=1
$tool --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    --tag "tabane:$version" --tag tabane:latest . || {
    echo "the image was not built; \`$tool\` says why above" >&2
    exit 1
}
echo "built tabane:$version, also tabane:latest"
