#!/usr/bin/env bash
# Eight GPUs: a vLLM server samples on four of them, four train. The server ends with the run.
#   [LAYOUT=zero3] launch/gpu8_server.sh [--print] method=hapo model=r1_distill_qwen_7b data=gsm8k
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TRAIN=(env "CUDA_VISIBLE_DEVICES=0,1,2,3"
  accelerate launch --config_file "$LAUNCH/accelerate/${LAYOUT:-zero2}.yaml" --num_processes 4
  -m concise_rl.train run=gpu8_server "${OVERRIDES[@]}")
# The server must sample from the very model that the overrides name: its revision, code and dtype too.
SERVED="$("${PYTHON:-python}" -m concise_rl.commands.served run=gpu8_server "${OVERRIDES[@]}")"
mapfile -t SERVED <<<"$SERVED"
SERVE=(env "CUDA_VISIBLE_DEVICES=4,5,6,7" VLLM_SERVER_DEV_MODE=1
  vllm serve "${SERVED[@]}" --data-parallel-size 4 --host 127.0.0.1 --port 8000)

if $PRINT; then
  show "${SERVE[@]}"
  show "${TRAIN[@]}"
  exit
fi

# Killed, this script leaves no server behind where the system can see to it.
if command -v setpriv >/dev/null; then SERVE=(setpriv --pdeathsig TERM "${SERVE[@]}"); fi
"${SERVE[@]}" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
"${TRAIN[@]}" & # waits for the server by itself
run=$!
trap 'kill -TERM "$run"' TERM INT
await "$run"
