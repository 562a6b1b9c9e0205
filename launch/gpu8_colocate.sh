#!/usr/bin/env bash
# Eight GPUs; each trains, and samples with a vLLM of its own.
#   [LAYOUT=fsdp2] launch/gpu8_colocate.sh [--print] method=hapo model=r1_distill_qwen_1.5b data=gsm8k
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start accelerate launch --config_file "$LAUNCH/accelerate/${LAYOUT:-zero2}.yaml" \
  -m concise_rl.train run=gpu8 "${OVERRIDES[@]}"
