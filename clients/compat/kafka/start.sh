#!/usr/bin/env bash
# Starts one Apache Kafka 4.3.1 node (broker and controller) in a temporary directory and waits until it answers.
# usage: start.sh [PORT] [KEY=VALUE]...     PORT defaults to 19092; the controller takes PORT+1
# Prints the directory, which holds `pid`, `log` and `server.properties`. Stop it with stop.sh DIRECTORY.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
PORT="${1:-19092}"
shift || true
"$COMPAT/fetch-kafka.sh" >/dev/null
DIR="$(mktemp -d "${TMPDIR:-/tmp}/kafka-$PORT-XXXXXX")"
CONTROLLER=$((PORT + 1))
cat >"$DIR/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$PORT,CONTROLLER://127.0.0.1:$CONTROLLER
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$DIR/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
CONF
for setting in group.initial.rebalance.delay.ms=0 "$@"; do
    sed -i "/^${setting%%=*}=/d" "$DIR/server.properties"
    echo "$setting" >>"$DIR/server.properties"
done
cd "$DIR"
java -cp "$KAFKA_LIBS/*" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qk -c server.properties --standalone >format.log 2>&1
nohup java "-Xmx${KAFKA_HEAP:-1G}" "-Xms${KAFKA_HEAP:-1G}" -XX:+UseG1GC -cp "$KAFKA_LIBS/*" kafka.Kafka server.properties >log 2>&1 </dev/null &
echo $! >pid
for _ in $(seq 360); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then
        echo "$DIR"
        exit 0
    fi
    kill -0 "$(cat pid)" 2>/dev/null || break
    sleep 0.25
done
echo "Kafka did not start; see $DIR/log" >&2
exit 1
