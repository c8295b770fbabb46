#!/usr/bin/env bash
# Holds our message codec against Kafka's own: the definitions in its jars, then random messages in both directions, byte for byte,
# and damaged ones: what we take, Kafka takes, and reads the same.
# usage: run.sh [SEED [COUNT]]   COUNT messages of every version of every message, each way. Needs a JDK, 17 or newer, with its `jar` tool.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../../.." && pwd)
seed=${1:-1} count=${2:-20}
for tool in java javac jar; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: install a JDK (17 or newer)" >&2; exit 1; }
done
libs=$("$here/../fetch-kafka.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for jar in kafka-clients kafka-group-coordinator; do
    file=$(ls "$libs/$jar"-[0-9]*.jar)
    (cd "$work" && jar xf "$file" common/message)
done
definitions="$work/common/message"
cd "$repository"
cargo build -q -p madang-protocol --example schema_oracle --example codec_oracle
examples="${CARGO_TARGET_DIR:-$repository/target}/debug/examples"

echo "definitions:"
"$examples/schema_oracle" "$definitions"

javac -proc:none -cp "$libs/*" -d "$work/classes" "$here/Oracle.java"
oracle() { java -Xmx512m -XX:+UseSerialGC -cp "$work/classes:$libs/*" Oracle "$@"; }

echo "ours, read by Kafka (seed $seed):"
"$examples/codec_oracle" generate "$seed" "$count" >"$work/ours"
oracle check <"$work/ours"

echo "Kafka's, read by us (seed $seed):"
oracle generate "$definitions" "$seed" "$count" <"$work/ours" >"$work/kafkas"
"$examples/codec_oracle" check <"$work/kafkas"

echo "damaged, taken by us (seed $seed):"
"$examples/codec_oracle" damage "$seed" "$((count * 4))" >"$work/damaged"
oracle accept <"$work/damaged"

echo "error codes:"
oracle errors >"$work/errors"
"$examples/codec_oracle" errors | diff - "$work/errors"
echo "$(wc -l <"$work/errors") compared, 0 differences"
