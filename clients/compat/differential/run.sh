#!/usr/bin/env bash
# Sends the same requests to two brokers and lists where their answers differ.
# usage: run.sh A B [--only GLOB] [--show-text] [--jobs N]        e.g. run.sh 127.0.0.1:19092 127.0.0.1:9092
# A is Apache Kafka 4.3.1 (kafka/start.sh starts one), B the broker under test. Exits non-zero on any unexpected difference.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
"$COMPAT/fetch-kafka.sh" >/dev/null
apt_need python3 python3
KAFKA_LIBS="$KAFKA_LIBS" PYTHONDONTWRITEBYTECODE=1 exec python3 "$COMPAT/differential/differential.py" "$@"
