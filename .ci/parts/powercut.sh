#!/usr/bin/env bash
# Power cuts on an ext4 image, ROUNDS in each durability mode (default 1; long: 20). Needs root, for mount.
set -euo pipefail
cd "$(dirname "$0")/../.."
source .ci/parts/mounts.sh
cargo test --quiet -p madang --test faults -- powercut "${1:-1}" "${2:-1}"
cargo test --quiet -p madang --test faults -- directory
