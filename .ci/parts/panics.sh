#!/usr/bin/env bash
# The sweep of panics: every actor at every kind of message, and connections, under load. An argument limits it to matching cases.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo test --quiet -p madang --features failpoints --test faults -- panics "$@"
