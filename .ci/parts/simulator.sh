#!/usr/bin/env bash
# The simulator's short form: seeds, determinism, the crash-point sweep, the explorers of one replica and of three, the planted bugs.
set -euo pipefail
cd "$(dirname "$0")/../.."
simulator="${CARGO_TARGET_DIR:-target}/release/madang-simulator"
"$simulator" --nodes 1 --seeds "${1:-0..300}" --coverage
"$simulator" --nodes 1 --seeds 0..20 --twice
"$simulator" --sweep
"$simulator" --explore
"$simulator" --mutants
"$simulator" --nodes 3 --explore
"$simulator" --nodes 3 --mutants
