#!/usr/bin/env bash
# How long clients wait for three nodes: each of the faults that docs/performance.md has times of, ROUNDS times (default 30), beside PARTITIONS idle
# partitions (default 1000), with a build as people run it; then the history is judged like any other. Needs root, for mount; a run that fails keeps its history and logs.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
faults="${3:-kill,kill-controller,stop,freeze,kill-all,cut-two-way,power-cut-all}"
cargo build --quiet -p madang-load-tests
source .ci/parts/mounts.sh
# Copies, as a build of anything else takes their place.
cp "${MADANG:-$target/release/madang}" "$TMPDIR/madang"
cp "$target/debug/madang-load-tests" "$TMPDIR/madang-load-tests"
"$TMPDIR/madang-load-tests" chaos --binary "$TMPDIR/madang" --rounds "${1:-30}" --idle-partitions "${2:-1000}" --faults "$faults"
