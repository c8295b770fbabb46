#!/usr/bin/env bash
# Stops the node that start.sh put into DIRECTORY, by its pid, and removes the directory.
# usage: stop.sh DIRECTORY
set -euo pipefail
DIR="${1:?usage: stop.sh DIRECTORY}"
PID="$(cat "$DIR/pid")"
kill -TERM "$PID" 2>/dev/null || true
for _ in $(seq 60); do
    kill -0 "$PID" 2>/dev/null || break
    sleep 0.25
done
kill -KILL "$PID" 2>/dev/null || true
rm -rf -- "$DIR"
