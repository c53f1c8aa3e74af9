#!/usr/bin/env bash
# One rank of the server, inside the container; srun starts as many as there are GPUs.
# What differs between ranks follows triton_backend/scripts/launch_triton_server.py of
# NVIDIA/TensorRT-LLM: shared memory has a name for each rank, and ranks above 0 load nothing but
# the engine. With the LLM API every rank goes through trtllm-llmapi-launch, which starts the
# server on rank 0 and workers on the others.
set -euo pipefail

rank="${SLURM_PROCID:?not inside srun}"
server="${TRITONSERVER:-/opt/tritonserver/bin/tritonserver}"
repository="$(realpath -e -- "${REPOSITORY:?}")"
host="${HOST:-127.0.0.1}"
restricted="model-repository,trace,logging,shared-memory:toolkit-admin-key=${ADMIN_KEY:?}"

words=(
    "$server"
    "--model-repository=$repository"
    --disable-auto-complete-config
    --exit-on-error=true
    --strict-readiness=true
    "--exit-timeout-secs=${DRAIN_SECONDS:-30}"
    "--http-address=$host"
    "--http-port=${HTTP_PORT:-8000}"
    "--grpc-address=$host"
    "--grpc-port=${GRPC_PORT:-8001}"
    "--metrics-address=$host"
    "--metrics-port=${METRICS_PORT:-8002}"
    "--http-restricted-api=$restricted"
    "--grpc-restricted-protocol=$restricted"
    "--backend-config=python,shm-region-prefix-name=toolkit_${SLURM_JOB_ID:-0}_${rank}_"
)

case "${RUNTIME:-pytorch}" in
pytorch)
    exec trtllm-llmapi-launch "${words[@]}"
    ;;
tensorrt)
    if [[ $rank == 0 ]]; then
        exec "${words[@]}" --model-control-mode=none
    fi
    exec "${words[@]}" --model-control-mode=explicit --load-model=tensorrt_llm
    ;;
*)
    printf 'error: RUNTIME is tensorrt or pytorch, not %s\n' "$RUNTIME" >&2
    exit 2
    ;;
esac
