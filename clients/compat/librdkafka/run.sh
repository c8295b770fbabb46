#!/usr/bin/env bash
# Runs librdkafka's own tests, each in its own process, against a broker.
# usage: run.sh [--server HOST:PORT] [--scenario default|noautocreate] [--jobs N] [--out FILE] SMOKE|ALLOW|ALL|NUMBER...
# The broker wants num.partitions=4 and group.initial.rebalance.delay.ms=3000 (0102 and 0113 race at 0).
# Exits non-zero unless every test that allow.tsv lists for this choice passed; a test that skips itself counts as missing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
[ $# -gt 0 ] || { sed -n 3p "$0" >&2; exit 2; }
apt_need python3 python3
TESTS="$("$COMPAT/librdkafka/build.sh")"
"$COMPAT/fetch-kafka.sh" >/dev/null
exec python3 "$COMPAT/librdkafka/runner.py" --tests "$TESTS" --kafka "$COMPAT" --server "$SERVER" --work "$CACHE/librdkafka-run" "$@"
