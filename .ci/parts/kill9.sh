#!/usr/bin/env bash
# kill -9 under the load of an idempotent librdkafka producer, ROUNDS times (default 10; long: 50), then a full read.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo test --quiet -p madang --test faults -- kill9 "${1:-10}" "${2:-1}"
