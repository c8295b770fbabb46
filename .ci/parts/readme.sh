#!/usr/bin/env bash
# Runs the commands of README.md as a newcomer would, with the data in a temporary folder and on ports of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
madang="${MADANG:-${CARGO_TARGET_DIR:-target}/release/madang}"
work=$(mktemp -d)
trap '[ -z "${pid:-}" ] || kill "$pid" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
start() {
    "$madang" start --data "$work/madang-data" --listen 127.0.0.1:29192 >"$work/out" 2>"$work/err" &
    pid=$!
    for _ in $(seq 100); do
        # The last line of what it says once it serves.
        grep -q "madang consume" "$work/out" && return
        kill -0 "$pid" || { cat "$work/err"; exit 1; }
        sleep 0.1
    done
    echo "the broker does not listen"; cat "$work/err"; exit 1
}
stop() { kill -TERM "$pid"; wait "$pid"; pid=; grep -q "stopped; everything is on disk" "$work/out"; }
expect() { if [ "$1" = "$2" ]; then echo "ok    $3"; else echo "FAILED $3: got '$1', expected '$2'"; exit 1; fi; }
export MADANG_SERVER=127.0.0.1:29192
start
expect "$(grep -c 'one sync takes' "$work/out")" 1 "the banner tells the sync time"
echo hello | "$madang" produce greetings
expect "$("$madang" consume greetings --from-beginning --max 1)" hello "our own produce and consume"
expect "$("$madang" topic list --output json | grep -c greetings)" 1 "madang topic list"
echo world | kcat -b "$MADANG_SERVER" -P -t greetings
expect "$(kcat -b "$MADANG_SERVER" -C -t greetings -o beginning -e -q | tr '\n' ' ')" "hello world " "kcat"
curl -fsS http://127.0.0.1:30192/health | grep -q '"status":"ok"' && echo "ok    /health"
curl -fsS http://127.0.0.1:30192/metrics | grep -q madang_topics && echo "ok    /metrics"
"$madang" tree | grep -q greetings-0 && echo "ok    madang tree"
stop && echo "ok    an orderly stop"
start
expect "$(kcat -b "$MADANG_SERVER" -C -t greetings -o beginning -e -q | tr '\n' ' ')" "hello world " "a second start recovers"
stop
"$madang" cluster dev --nodes 3 --data "$work/madang-dev" --base-port 29192 >"$work/dev" 2>&1 &
pid=$!
for _ in $(seq 300); do grep -q "3 nodes serve" "$work/dev" && break; kill -0 "$pid"; sleep 0.2; done
expect "$("$madang" cluster status | grep -c serving)" 3 "madang cluster dev and status"
echo hello | "$madang" produce greetings --server 127.0.0.1:29193
expect "$("$madang" consume greetings --from-beginning --max 1 --server 127.0.0.1:29194)" hello "one node takes, another gives"
kill -TERM "$pid"; wait "$pid"; pid=
echo "13 passed, 0 failed"
