#!/usr/bin/env bash
# The same requests to Apache Kafka and to Madang, answers compared. Starts both, stops both by their ids.
# usage: differential.sh [MADANG_BINARY] [--only GLOB]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BINARY="${1:-${CARGO_TARGET_DIR:-target}/debug/madang}"
shift || true
KAFKA_PORT="${KAFKA_PORT:-31092}" MADANG_PORT="${MADANG_PORT:-31192}"
DATA="$(mktemp -d)" KAFKA="" PID=""
finish() {
    [ -z "$PID" ] || kill "$PID" 2>/dev/null || true
    [ -z "$KAFKA" ] || clients/compat/kafka/stop.sh "$KAFKA" >/dev/null 2>&1 || true
    [ -z "$PID" ] || wait "$PID" 2>/dev/null || true
    rm -rf "$DATA"
}
trap finish EXIT
# Hours in the file, so that what each answer says of where a value comes from is compared.
HOURS=(log.retention.hours=168 log.roll.hours=168)
KAFKA="$(clients/compat/kafka/start.sh "$KAFKA_PORT" "${HOURS[@]}")"
# What Kafka's own file sets to run on one node, so that what is reported can be compared.
SETTINGS=(group.initial.rebalance.delay.ms=0 offsets.topic.replication.factor=1 transaction.state.log.replication.factor=1
    transaction.state.log.min.isr=1 share.coordinator.state.topic.replication.factor=1 share.coordinator.state.topic.min.isr=1 node.id=1)
"$BINARY" start --data "$DATA" --listen "127.0.0.1:$MADANG_PORT" "${SETTINGS[@]/#/--set=}" "${HOURS[@]/#/--set=}" >"$DATA.log" 2>&1 &
PID=$!
for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$MADANG_PORT") 2>/dev/null && break
    sleep 0.1
done
clients/compat/differential/run.sh "127.0.0.1:$KAFKA_PORT" "127.0.0.1:$MADANG_PORT" --jobs 4 "$@"
