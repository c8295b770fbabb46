#!/usr/bin/env bash
# Kafka's own command-line tools, through the shims in ../bin, against a broker.
# usage: run.sh [HOST:PORT]
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
SERVER="${1:-$SERVER}"
"$COMPAT/fetch-kafka.sh" >/dev/null || exit 1
export PATH="$COMPAT/bin:$PATH"
PASSED=0
FAILED=0
RUN="tools-$$-$RANDOM"
TOPIC="$RUN-topic"
GROUP="$RUN-group"
B=(--bootstrap-server "$SERVER")
OUT="$(mktemp)"
trap 'rm -f -- "$OUT"' EXIT

# expect NAME PATTERN COMMAND...: the command must succeed and its output match the extended regular expression.
expect() {
    local name="$1" pattern="$2" status=0
    shift 2
    timeout 120 "$@" >"$OUT" 2>&1 </dev/null || status=$?
    verdict "$name" "$pattern" "$status"
}

# refuse NAME PATTERN COMMAND...: the command must fail and say why.
refuse() {
    local name="$1" pattern="$2" status=0
    shift 2
    timeout 120 "$@" >"$OUT" 2>&1 </dev/null || status=$?
    verdict "$name" "$pattern" "$((status == 0))"
}

verdict() {
    if [ "$3" = 0 ] && { [ "$2" = "^" ] || grep -qE -- "$2" "$OUT"; }; then
        PASSED=$((PASSED + 1))
    else
        FAILED=$((FAILED + 1))
        echo "FAILED $1 (status $3), wanted /$2/:"
        tail -5 "$OUT" | cut -c1-300
    fi
}

feed() { seq 1 100 | sed 's/.*/key&:value&/' | timeout 120 kafka-console-producer.sh "${B[@]}" --topic "$TOPIC" --reader-property parse.key=true --reader-property key.separator=: "$@"; }

expect "broker api versions" 'Produce\(0\): 0 to ' kafka-broker-api-versions.sh "${B[@]}"
expect "create" "Created topic $TOPIC" kafka-topics.sh "${B[@]}" --create --topic "$TOPIC" --partitions 2 --replication-factor 1 --config retention.ms=7200000
refuse "create again" "already exists" kafka-topics.sh "${B[@]}" --create --topic "$TOPIC"
expect "list" "^$TOPIC$" kafka-topics.sh "${B[@]}" --list
expect "describe" "PartitionCount: 2.*retention.ms=7200000" kafka-topics.sh "${B[@]}" --describe --topic "$TOPIC"
expect "more partitions" "^" kafka-topics.sh "${B[@]}" --alter --topic "$TOPIC" --partitions 3
expect "three now" "PartitionCount: 3" kafka-topics.sh "${B[@]}" --describe --topic "$TOPIC"
expect "alter config" "Completed updating config" kafka-configs.sh "${B[@]}" --entity-type topics --entity-name "$TOPIC" --alter --add-config max.message.bytes=2000000
expect "describe config" "max.message.bytes=2000000" kafka-configs.sh "${B[@]}" --entity-type topics --entity-name "$TOPIC" --describe
expect "describe all config" "cleanup.policy=delete.*DEFAULT_CONFIG" kafka-configs.sh "${B[@]}" --entity-type topics --entity-name "$TOPIC" --describe --all
expect "delete config" "Completed updating config" kafka-configs.sh "${B[@]}" --entity-type topics --entity-name "$TOPIC" --alter --delete-config max.message.bytes
refuse "unknown config" "nonsense" kafka-configs.sh "${B[@]}" --entity-type topics --entity-name "$TOPIC" --alter --add-config nonsense=1
expect "broker config" "num.partitions=" kafka-configs.sh "${B[@]}" --entity-type brokers --all --describe
for codec in none gzip snappy lz4 zstd; do
    expect "produce $codec" '^' bash -c "$(declare -f feed); TOPIC=$TOPIC; B=(${B[*]}); feed --compression-codec $codec"
done
expect "consume all" "Processed a total of 500 messages" kafka-console-consumer.sh "${B[@]}" --topic "$TOPIC" --from-beginning --max-messages 500 --timeout-ms 30000 --group "$GROUP" --formatter-property print.key=true --formatter-property print.headers=true
KEYS="$(grep -cE "^NO_HEADERS.key1.value1$" "$OUT")"
expect "keys and headers are printed" "^5$" echo "$KEYS"
expect "groups are listed" "^$GROUP$" kafka-consumer-groups.sh "${B[@]}" --list
expect "group state" "Empty" kafka-consumer-groups.sh "${B[@]}" --describe --group "$GROUP" --state
expect "group has no lag" "$GROUP +$TOPIC +0 +[0-9]+ +[0-9]+ +0 " kafka-consumer-groups.sh "${B[@]}" --describe --group "$GROUP"
expect "offsets are written" "\"group\":\"$GROUP\"|$GROUP,$TOPIC" kafka-console-consumer.sh "${B[@]}" --topic __consumer_offsets --from-beginning --timeout-ms 8000 --formatter org.apache.kafka.tools.consumer.OffsetsMessageFormatter
expect "group metadata is written" "$GROUP" kafka-console-consumer.sh "${B[@]}" --topic __consumer_offsets --from-beginning --timeout-ms 8000 --formatter org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter
expect "reset, dry" "$GROUP +$TOPIC +0 +0" kafka-consumer-groups.sh "${B[@]}" --group "$GROUP" --topic "$TOPIC" --reset-offsets --to-earliest --dry-run
expect "reset" "$GROUP +$TOPIC +0 +0" kafka-consumer-groups.sh "${B[@]}" --group "$GROUP" --topic "$TOPIC" --reset-offsets --to-earliest --execute
expect "reset by time" "$GROUP +$TOPIC" kafka-consumer-groups.sh "${B[@]}" --group "$GROUP" --topic "$TOPIC" --reset-offsets --to-datetime 2020-01-01T00:00:00.000 --execute
expect "delete offsets" "Successful" kafka-consumer-groups.sh "${B[@]}" --group "$GROUP" --topic "$TOPIC:0" --delete-offsets
expect "delete group" "was successful" kafka-consumer-groups.sh "${B[@]}" --group "$GROUP" --delete
expect "unknown group" "not exist|[Nn]ot found|GroupIdNotFound" kafka-consumer-groups.sh "${B[@]}" --describe --group "$GROUP"
expect "latest offsets" "^$TOPIC:[012]:[0-9]+$" kafka-get-offsets.sh "${B[@]}" --topic "$TOPIC"
expect "earliest offsets" "^$TOPIC:0:0$" kafka-get-offsets.sh "${B[@]}" --topic "$TOPIC" --time earliest
expect "max timestamp offsets" "^$TOPIC:[012]:[0-9]+$" kafka-get-offsets.sh "${B[@]}" --topic "$TOPIC" --time max-timestamp
CUT="$(mktemp)"
printf '{"partitions":[{"topic":"%s","partition":0,"offset":5}],"version":1}' "$TOPIC" >"$CUT"
expect "delete records" "low_watermark: 5" kafka-delete-records.sh "${B[@]}" --offset-json-file "$CUT"
rm -f -- "$CUT"
expect "earliest has moved" "^$TOPIC:0:5$" kafka-get-offsets.sh "${B[@]}" --topic "$TOPIC" --time earliest
expect "metadata quorum" 'LeaderId: +[0-9]+' kafka-metadata-quorum.sh "${B[@]}" describe --status
expect "log directories" '"partition":"[^"]+","size":[1-9]' kafka-log-dirs.sh "${B[@]}" --describe --topic-list "$TOPIC"
expect "preferred leader" "Valid replica already elected|Successfully completed" kafka-leader-election.sh "${B[@]}" --election-type preferred --topic "$TOPIC" --partition 0
MOVE="$(mktemp)"
NODE="$(kafka-topics.sh "${B[@]}" --describe --topic "$TOPIC" 2>/dev/null | sed -n 's/.*Leader: \([0-9]*\).*/\1/p' | head -1)"
printf '{"version":1,"partitions":[{"topic":"%s","partition":0,"replicas":[%s]}]}' "$TOPIC" "$NODE" >"$MOVE"
expect "reassign" "Successfully started partition reassignment" kafka-reassign-partitions.sh "${B[@]}" --reassignment-json-file "$MOVE" --execute
expect "reassigned" "Reassignment of partition $TOPIC-0 is completed" kafka-reassign-partitions.sh "${B[@]}" --reassignment-json-file "$MOVE" --verify
rm -f -- "$MOVE"
expect "none is in progress" "No partition reassignments found" kafka-reassign-partitions.sh "${B[@]}" --list
refuse "unknown broker" "99" kafka-cluster.sh unregister --id 99 "${B[@]}"
expect "producer perf" "20000 records sent" kafka-producer-perf-test.sh --topic "$TOPIC" --num-records 20000 --record-size 1024 --throughput -1 --producer-props "bootstrap.servers=$SERVER" acks=all linger.ms=5
expect "consumer perf" ", 1[0-9]\.|, 2[0-9]\." kafka-consumer-perf-test.sh "${B[@]}" --topic "$TOPIC" --messages 15000 --timeout 20000
expect "end to end latency" "Percentiles" kafka-e2e-latency.sh --bootstrap-server "$SERVER" --topic "$TOPIC" --num-records 500 --producer-acks all --record-size 100
expect "verifiable producer" '"sent":50' kafka-verifiable-producer.sh "${B[@]}" --topic "$TOPIC" --max-messages 50
expect "delete" '^' kafka-topics.sh "${B[@]}" --delete --topic "$TOPIC"
expect "gone" '^' bash -c "! kafka-topics.sh ${B[*]} --list | grep -qx '$TOPIC'"
refuse "delete the absent" "does not exist" kafka-topics.sh "${B[@]}" --delete --topic "$TOPIC"
echo "$PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ]
