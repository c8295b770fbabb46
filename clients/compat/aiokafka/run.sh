#!/usr/bin/env bash
# Round trip with aiokafka (pure Python).
# usage: run.sh [HOST:PORT]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
SERVER="${1:-$SERVER}"
install() {
    python3 -m venv "$CACHE/aiokafka-venv"
    "$CACHE/aiokafka-venv/bin/pip" install -q --disable-pip-version-check -r "$COMPAT/aiokafka/requirements.txt"
}
apt_need python3 python3 python3-venv
once "aiokafka-$(sha1sum <"$COMPAT/aiokafka/requirements.txt" | head -c 8)" install
exec "$CACHE/aiokafka-venv/bin/python" "$COMPAT/aiokafka/round_trip.py" "$SERVER"
