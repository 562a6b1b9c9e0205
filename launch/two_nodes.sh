#!/usr/bin/env bash
# Two machines of eight GPUs each, vLLM colocated; started once on each. Both see the same run.dir.
#   MAIN_ADDRESS=first-machine NODE_RANK=0 launch/two_nodes.sh [--print] method=hapo model=qwen3_4b data=gsm8k
#   MAIN_ADDRESS=first-machine NODE_RANK=1 launch/two_nodes.sh           ... the same on the second
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start accelerate launch --config_file "$LAUNCH/accelerate/${LAYOUT:-two_nodes}.yaml" \
  --machine_rank "${NODE_RANK:-${SLURM_NODEID:?set NODE_RANK to 0 on the first machine and to 1 on the second}}" \
  --main_process_ip "${MAIN_ADDRESS:?set MAIN_ADDRESS to the first machine}" --main_process_port "${MAIN_PORT:-29500}" \
  -m concise_rl.train run=gpu8 "${OVERRIDES[@]}"
