#!/usr/bin/env bash
# Every kind of fault on three nodes under the load of real clients, for SECONDS (default 120; long: 3600) from SEED (default 1): the history of what
# the clients saw is judged, and a required fault that never happened fails the run. Then failovers, ROUNDS of them (default 5). PACE (default 30) is
# the milliseconds between two rounds of a producer, BURST (default 1) the records of a round to each partition; a node's disk has DISK_GIB (default 1). PROFILE (default
# dev; long: release) is that of the harness: its share of the machine decides how much it can write.
# Needs root, for mount; a run that fails keeps its history and logs.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
# A copy, as a build of anything else takes its place.
cargo build --quiet -p madang --features failpoints
harness="${PROFILE:-dev}"
cargo build --quiet --profile "$harness" -p madang-load-tests
source .ci/parts/mounts.sh
cp "$target/debug/madang" "$TMPDIR/madang"
"$target/${harness/#dev/debug}/madang-load-tests" chaos --binary "$TMPDIR/madang" --seconds "${1:-120}" --seed "${2:-1}" --idle-partitions 200 --pace "${4:-30}" --burst "${5:-1}" \
    --disk-gib "${6:-1}"
.ci/parts/failover.sh "${3:-5}"
