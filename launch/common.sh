# shellcheck shell=bash
# What every starter shares; sourced with the starter's arguments. --print shows the command and runs nothing.
# LAYOUT names a file of launch/accelerate.
set -euo pipefail

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# shellcheck disable=SC2034 # the starters use it
LAUNCH="$(dirname "${BASH_SOURCE[0]}")"
PRINT=false
OVERRIDES=()
for argument in "$@"; do
  if [[ $argument == --print ]]; then PRINT=true; else OVERRIDES+=("$argument"); fi
done

show() { # the command as it can be typed
  printf 'OMP_NUM_THREADS=%s OMP_WAIT_POLICY=%s' "$OMP_NUM_THREADS" "$OMP_WAIT_POLICY"
  printf ' %q' "$@"
  printf '\n'
}

start() { # takes this shell's place, so that signals reach the run itself
  if $PRINT; then show "$@"; else exec "$@"; fi
}

await() { # the exit code of process $1; a signal that this shell traps ends a `wait`, not the process
  local code=0
  wait "$1" || code=$?
  while kill -0 "$1" 2>/dev/null; do
    code=0
    wait "$1" || code=$?
  done
  return "$code"
}
