#!/usr/bin/env bash
# What every shim in this folder ends in: runs the Java class CLASS of Kafka's tools. The jars are fetched at the first use.
# usage: _run.sh CLASS ARGUMENT...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
[ -e "$CACHE/.done-kafka-$KAFKA_VERSION-jars" ] || "$COMPAT/fetch-kafka.sh" >/dev/null
CLASS="$1"
shift
exec java "-Xmx${KAFKA_HEAP:-256M}" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$KAFKA_LIBS/*" "$CLASS" "$@"
