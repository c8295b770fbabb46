#!/usr/bin/env bash
# The simulator's short form: seeds of a node and of clusters, determinism, the crash-point sweep, the explorers of one replica and of three, the
# metadata quorum, planted bugs.
# Each run has one thread, so two go on at once: the seeds, and all the rest.
set -euo pipefail
cd "$(dirname "$0")/../.."
simulator="${CARGO_TARGET_DIR:-target}/release/madang-simulator"
log=$(mktemp)
"$simulator" --nodes 1 --seeds "${1:-0..300}" --coverage >"$log" 2>&1 &
seeds=$!
trap 'kill "$seeds" 2>/dev/null || true; rm -f "$log"' EXIT
"$simulator" --nodes 1 --seeds 0..20 --twice
"$simulator" --sweep
"$simulator" --explore
"$simulator" --mutants
"$simulator" --nodes 3 --explore
"$simulator" --nodes 3 --mutants
"$simulator" --voters 1 --seeds 0..20
"$simulator" --voters 3 --seeds 0..150
"$simulator" --voters 5 --seeds 0..40
"$simulator" --voters 3 --seeds 0..5 --twice
# Members that come, vote and go all the time.
"$simulator" --voters 1 --grow 4 --seeds 0..80
"$simulator" --voters 3 --grow 5 --seeds 0..40
# A leader that a change left without a vote led on, and Raft panicked.
"$simulator" --voters 1 --grow 4 --seed 151
"$simulator" --voters 1 --grow 4 --seeds 0..3 --twice
"$simulator" --voters 3 --mutants
"$simulator" --cluster 3 --seeds 0..20
# Seeds that failed once: a leader whose own disk is behind its majority's judged heartbeats by what it had applied.
"$simulator" --cluster 3 --seed 54
"$simulator" --cluster 3 --seed 84
# Replicas of page-cache durability that were stopped, and not in order, counted for nothing.
"$simulator" --cluster 3 --seed 20
# All machines lost power before the first start of any had looked at its empty directory: new partitions had nobody who may lead.
"$simulator" --cluster 3 --seed 251
# A node that was killed while it closed its logs went on beside its next life.
"$simulator" --cluster 3 --seed 212
# A node that was frozen while it asked to serve, and fenced again before it heard that it may, never did.
"$simulator" --cluster 3 --seed 28
# A partition that was created while one node was alive, which then lost its disk, had nobody left to lead it.
"$simulator" --cluster 3 --seed 104
"$simulator" --cluster 5 --seeds 0..5
"$simulator" --cluster 3 --seeds 0..2 --twice
"$simulator" --cluster 3 --sweep
"$simulator" --cluster 3 --scenarios
"$simulator" --cluster 3 --mutants
outcome=0
wait "$seeds" || outcome=$?
cat "$log"
exit "$outcome"
