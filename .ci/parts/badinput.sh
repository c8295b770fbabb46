#!/usr/bin/env bash
# Hostile bytes against Madang beside a good client, 500 stalled frames of 50 MB included. Starts it, stops it by its id.
# usage: badinput.sh [MADANG_BINARY]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BINARY="${1:-${CARGO_TARGET_DIR:-target}/debug/madang}"
PORT="${MADANG_PORT:-31193}" DATA="$(mktemp -d)" PID=""
finish() {
    [ -z "$PID" ] || kill "$PID" 2>/dev/null || true
    [ -z "$PID" ] || wait "$PID" 2>/dev/null || true
    rm -rf "$DATA"
}
trap finish EXIT
"$BINARY" start --data "$DATA" --listen "127.0.0.1:$PORT" --set=group.initial.rebalance.delay.ms=0 >"$DATA.log" 2>&1 &
PID=$!
for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && break
    sleep 0.1
done
clients/compat/badinput/run.sh "127.0.0.1:$PORT" --pid "$PID"
