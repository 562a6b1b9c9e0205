#!/usr/bin/env bash
# One GPU, vLLM colocated.
#   launch/gpu1.sh [--print] method=hapo model=qwen3_1.7b data=gsm8k
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

start concise-rl train run=gpu1 "${OVERRIDES[@]}"
