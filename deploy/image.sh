#!/usr/bin/env bash
# Builds the image around a binary that was built before (make build), instead of compiling all of it again in a container.
set -euo pipefail

usage="usage: deploy/image.sh PATH_OF_FLOTILLA [NAME_OF_IMAGE]"
flotilla=${1:?$usage}
image=${2:-flotilla}
repository=$(cd "$(dirname "$0")/.." && pwd)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
# Line tables are three quarters of the binary; names stay.
strip --strip-debug -o "$context/flotilla" "$flotilla"
cp "$repository/deploy/Dockerfile" "$context/Dockerfile"
docker build --quiet --target prebuilt --tag "$image" "$context"
# A binary that was built against a newer C library than the image's does not start in it.
docker run --rm --network none "$image" --version
