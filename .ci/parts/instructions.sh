#!/usr/bin/env bash
# Counts the instructions of the codec and of a log under callgrind, and compares them with protocol/benches/instructions.tsv and storage/benches/instructions.tsv.
# Fails where one is above what its file lets through. UPDATE_COUNTS=1 writes the files anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo bench --quiet --no-fail-fast -p madang-protocol -p madang-storage --bench instructions
