#!/usr/bin/env bash
# Three nodes under the load of an idempotent librdkafka producer with default settings: one killed, restarted, frozen, all killed, ROUNDS times
# (default 3), beside PARTITIONS idle partitions (default 0), then a full read.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo test --quiet -p madang --test faults -- failover "${1:-3}" "${2:-0}"
