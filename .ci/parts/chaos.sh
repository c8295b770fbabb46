#!/usr/bin/env bash
# Every kind of fault on three nodes under the load of real clients, for SECONDS (default 120; long: 3600) from SEED (default 1): the history of what
# the clients saw is judged, and a required fault that never happened fails the run. Then failovers, ROUNDS of them (default 5). PACE (default 30) is
# the milliseconds between two records of a producer to a partition.
# Needs root, for mount. Every mount and loop device is gone at the end, whatever happened; a run that fails keeps its history and logs.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
# A copy, as a build of anything else takes its place.
cargo build --quiet -p madang --features failpoints
cargo build --quiet -p madang-load-tests
TMPDIR=$(mktemp -d)
export TMPDIR
cleanup() {
    local status=$?
    { findmnt -rn -o TARGET || true; } | { grep -F "$TMPDIR/" || true; } | while read -r mounted; do umount "$mounted" || umount -l "$mounted"; done
    losetup -n -O NAME,BACK-FILE | { grep -F "$TMPDIR/" || true; } | while read -r device _; do losetup -d "$device"; done
    if [ "$status" -eq 0 ]; then rm -rf "$TMPDIR"; else echo "kept: $TMPDIR"; fi
}
trap cleanup EXIT
cp "$target/debug/madang" "$TMPDIR/madang"
"$target/debug/madang-load-tests" chaos --binary "$TMPDIR/madang" --seconds "${1:-120}" --seed "${2:-1}" --idle-partitions 200 --pace "${4:-30}"
.ci/parts/failover.sh "${3:-5}"
