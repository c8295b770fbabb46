#!/bin/sh
# Madang beside Apache Kafka on this machine; prints the tables of docs/performance.md. Wants a quiet machine, java, kcat and python3.
#   .ci/parts/compare-kafka.sh          short: one pair of small runs, under two minutes
#   .ci/parts/compare-kafka.sh --long   five pairs of 2 GiB, 50 starts: about half an hour
# More options go to clients/compat/perf/compare.py. MADANG_BIN names a binary
# that is built already, MADANG_KAFKA_LIBS a folder with Kafka's jars.
set -eu
cd "$(dirname "$0")/../.."

size="--pairs 1 --records 300000 --rounds 3"
if [ "${1:-}" = "--long" ]; then
    size="--pairs 5 --records 2000000 --rounds 50"
    shift
fi

libs=$(bash clients/compat/fetch-kafka.sh)
if [ -z "${MADANG_BIN:-}" ]; then
    cargo build --release -p madang --bin madang
    MADANG_BIN=${CARGO_TARGET_DIR:-target}/release/madang
fi

# The sizes are a list of words.
# shellcheck disable=SC2086
exec python3 clients/compat/perf/compare.py --madang "$MADANG_BIN" --kafka "$libs" $size "$@"
