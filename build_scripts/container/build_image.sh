#!/usr/bin/env bash
# Build the toolkit's own image on the Triton image of a TensorRT-LLM release.
#   build_image.sh [RELEASE] [TAG]     IMAGE=... overrides the release's (a digest, a mirror)
# Needs docker or podman, and a Python with the toolkit and the package `build` on this side.
set -euo pipefail
cd "$(dirname "$0")"

release="${1:-}"
tag="${2:-triton-trtllm-toolkit:${release:-latest-release}}"
engine="${TOOLKIT_CONTAINER_ENGINE:-docker}"
python="${PYTHON:-python3}"

image="${IMAGE:-$("$python" prepare_wheels.py image "$release")}"
context="$(mktemp -d)"
trap 'rm -rf "$context"' EXIT

"$engine" image inspect "$image" >/dev/null 2>&1 || "$engine" pull "$image"
"$python" prepare_wheels.py wheels "$image" "$context/wheels"
cp Dockerfile "$context/"

printf '== %s build %s (on %s)\n' "$engine" "$tag" "$image"
"$engine" build --pull=false --build-arg "IMAGE=$image" \
    --label "toolkit.base=$image" --tag "$tag" "$context"
