#!/usr/bin/env bash
# Round trip with franz-go.
# usage: run.sh [HOST:PORT]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
SERVER="${1:-$SERVER}"
apt_need go golang-go
cd "$COMPAT/go"
export GOFLAGS=-mod=mod
nice -n 5 go build -o "$CACHE/go-round-trip" .
exec "$CACHE/go-round-trip" "$SERVER"
