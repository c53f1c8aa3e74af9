#!/usr/bin/env bash
# Build a deployment inside a container, on a machine that has nothing but docker or podman:
#   build_in_container.sh FILE [OPTIONS OF toolkit build]
# IMAGE is the toolkit's own image (build_scripts/container/build_image.sh). Where the toolkit is
# installed, `toolkit build FILE --where container` does the same with NVIDIA's image as it is.
set -euo pipefail

usage="usage: build_in_container.sh FILE [OPTIONS]"
file="$(realpath -e -- "${1:?$usage}")"
shift
engine="${TOOLKIT_CONTAINER_ENGINE:-docker}"
image="${IMAGE:-triton-trtllm-toolkit:latest-release}"
directory="$(dirname "$file")"
workspace="${TOOLKIT_WORKSPACE:-$directory/.toolkit}"
cache="${TOOLKIT_CACHE:-$HOME/.cache/toolkit}/container"
mkdir -p "$workspace" "$cache"
workspace="$(realpath -- "$workspace")" cache="$(realpath -- "$cache")" # as bind mounts want them

# Which GPUs: all of them, some (GPUS=0,1), or none (GPUS=none, to prepare on a machine without).
gpus="${GPUS:-all}"
devices=()
if [[ $gpus != none && $engine == podman ]]; then
    IFS=, read -ra numbers <<<"$gpus"
    for number in "${numbers[@]}"; do devices+=(--device "nvidia.com/gpu=$number"); done
elif [[ $gpus == all ]]; then
    devices=(--gpus all)
elif [[ $gpus != none ]]; then
    devices=(--gpus "\"device=$gpus\"") # docker splits at commas outside quotes
fi

# By name: the value is in nobody's process list.
secrets=()
for name in HF_TOKEN HUGGING_FACE_HUB_TOKEN; do
    [[ -z ${!name:-} ]] || secrets+=(--env "$name")
done

exec "$engine" run --rm --init \
    --user "$(id -u):$(id -g)" --cap-drop ALL --security-opt no-new-privileges \
    --shm-size 8g --ulimit memlock=-1 --ulimit stack=67108864 \
    "${devices[@]}" "${secrets[@]}" \
    --mount "type=bind,source=$directory,target=$directory,readonly" \
    --mount "type=bind,source=$workspace,target=$workspace" \
    --mount "type=bind,source=$cache,target=/cache" \
    --workdir "$directory" \
    "$image" toolkit build "$file" --workspace "$workspace" "$@"
