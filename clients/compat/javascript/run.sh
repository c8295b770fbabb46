#!/usr/bin/env bash
# Round trip with KafkaJS.
# usage: run.sh [HOST:PORT]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
SERVER="${1:-$SERVER}"
install() {
    mkdir -p "$CACHE/javascript"
    cp "$COMPAT/javascript/package.json" "$CACHE/javascript/"
    (cd "$CACHE/javascript" && npm install --no-audit --no-fund --loglevel=error)
}
apt_need node nodejs
apt_need npm npm
once "javascript-$(sha1sum <"$COMPAT/javascript/package.json" | head -c 8)" install
NODE_PATH="$CACHE/javascript/node_modules" KAFKAJS_NO_PARTITIONER_WARNING=1 exec node "$COMPAT/javascript/round_trip.js" "$SERVER"
