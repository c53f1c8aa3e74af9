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

# Several engines, or a target and its draft over more GPUs than one, start their own processes:
# upstream's orchestrator mode, which does not go through SLURM (README of tensorrtllm_backend).
if grep -qs 'gpu_device_ids.*;' "$repository"/*/config.pbtxt ||
    grep -qs '"gpus":' "$repository"/*/1/settings.json ||
    [[ -d $repository/tensorrt_llm_draft && ${SLURM_NTASKS:-1} -gt 1 ]]; then
    printf 'error: several engines on a node are not started by srun\n' >&2
    printf ' hint: FLAVOUR=docker lets toolkit deploy start them; or one job for each replica\n' >&2
    exit 2
fi

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
