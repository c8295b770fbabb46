#!/usr/bin/env bash
# Power cuts on an ext4 image, ROUNDS in each durability mode (default 1; long: 20). Needs root, for mount.
# Every mount and loop device is gone at the end, whatever happened: all of them are under one folder of this run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export TMPDIR
TMPDIR=$(mktemp -d)
cleanup() {
    { findmnt -rn -o TARGET || true; } | { grep -F "$TMPDIR/" || true; } | while read -r mounted; do umount "$mounted" || umount -l "$mounted"; done
    losetup -n -O NAME,BACK-FILE | { grep -F "$TMPDIR/" || true; } | while read -r device _; do losetup -d "$device"; done
    rm -rf "$TMPDIR"
}
trap cleanup EXIT
cargo test --quiet -p madang --test faults -- powercut "${1:-1}" "${2:-1}"
cargo test --quiet -p madang --test faults -- directory
