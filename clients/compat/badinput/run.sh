#!/usr/bin/env bash
# Hostile bytes against a broker, with a good client beside them all the time.
# usage: run.sh [HOST:PORT] [--pid BROKER_PID] [--only GLOB] [--skip-stall]
# With --pid also the broker's memory is held to its limit during the 500 stalled connections.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
    SERVER="$1"
    shift
fi
"$COMPAT/fetch-kafka.sh" >/dev/null
apt_need python3 python3
ulimit -n 4096 2>/dev/null || true
KAFKA_LIBS="$KAFKA_LIBS" PYTHONDONTWRITEBYTECODE=1 exec python3 "$COMPAT/badinput/badinput.py" "$SERVER" "$@"
