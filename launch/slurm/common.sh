# shellcheck shell=bash
# What every job shares; sourced with the job's arguments, from the folder that the job was submitted in.
# shellcheck source=launch/common.sh
source launch/common.sh

PREEMPTED_CODE=75 # concise_rl.commands.train.EXIT_PREEMPTED

step() { # run a starter on every node; after a preemption or at the time limit, saved, the job queues again
  local command=(srun --kill-on-bad-exit=1 "$@" resume=auto "${OVERRIDES[@]}")
  if $PRINT; then
    show "${command[@]}"
    "$@" resume=auto "${OVERRIDES[@]}" --print
    return
  fi
  local preempted=false code=0
  "${command[@]}" &
  local running=$!
  # shellcheck disable=SC2064 # this run's number, now
  trap "preempted=true; kill -TERM $running" TERM
  await "$running" || code=$?
  # A launcher that passes the signal on exits with a code of its own.
  if ((code == PREEMPTED_CODE)) || { $preempted && ((code != 0)); }; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}
