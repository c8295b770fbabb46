#!/usr/bin/env bash
# Round trip with confluent-kafka (librdkafka).
# usage: run.sh [HOST:PORT]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
SERVER="${1:-$SERVER}"
install() {
    python3 -m venv "$CACHE/python-venv"
    "$CACHE/python-venv/bin/pip" install -q --disable-pip-version-check -r "$COMPAT/python/requirements.txt"
}
apt_need python3 python3 python3-venv
once "python-$(sha1sum <"$COMPAT/python/requirements.txt" | head -c 8)" install
exec "$CACHE/python-venv/bin/python" "$COMPAT/python/round_trip.py" "$SERVER"
