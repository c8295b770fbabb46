#!/usr/bin/env bash
# Does by hand what docs/operations.md says of several nodes, on this machine: certificates, three files, a start, a restart, a death.
set -euo pipefail
cd "$(dirname "$0")/../.."
madang="${MADANG:-${CARGO_TARGET_DIR:-target}/release/madang}"
work=$(mktemp -d)
declare -A pids
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$work"' EXIT
expect() { if [ "$1" = "$2" ]; then echo "ok    $3"; else echo "FAILED $3: got '$1', expected '$2'"; tail -n 5 "$work"/*.log; exit 1; fi; }
start() { "$madang" start --supervise --config "$work/node-$1.properties" >>"$work/node-$1.log" 2>&1 & pids[$1]=$!; }
stop() { kill -TERM "${pids[$1]}"; wait "${pids[$1]}"; unset "pids[$1]"; }
status() { "$madang" cluster status --server 127.0.0.1:2929"$1"; }
# The process id of a node; nothing while it does not run.
process() {
    "$madang" cluster status --server 127.0.0.1:29291 --output json |
        python3 -c 'import json, sys; print(*[node["pid"] for node in json.load(sys.stdin)["nodes"] if node["id"] == int(sys.argv[1]) and node["pid"]])' "$1"
}
# Whether N nodes serve and no partition lacks a replica; asks for a while.
whole() {
    for _ in $(seq 150); do
        if status "$1" 2>/dev/null >"$work/status" && [ "$(grep -c serving "$work/status")" = "$2" ] && grep -q " $3 under replicated, 0 under min isr, 0 offline" "$work/status"; then
            echo yes
            return
        fi
        sleep 0.2
    done
    cat "$work/status"
}
"$madang" cert authority --dir "$work/authority" >/dev/null
for node in 1 2 3; do
    "$madang" cert node --authority "$work/authority" --node "$node" --dir "$work/certificates-$node" >/dev/null
    cat >"$work/node-$node.properties" <<EOF
node.id=$node
listeners=PLAINTEXT://127.0.0.1:2929$node
madang.admin.listener=127.0.0.1:3029$node
log.dirs=$work/data-$node
madang.node.listener=127.0.0.1:3129$((2 * node))
madang.node.certificates=$work/certificates-$node
controller.quorum.voters=1@127.0.0.1:31293,2@127.0.0.1:31295,3@127.0.0.1:31297
default.replication.factor=3
min.insync.replicas=2
num.partitions=4
EOF
    start "$node"
done
expect "$(whole 1 3 0)" yes "three nodes that know each other by certificates"
seq 1 500 | "$madang" produce numbers --server 127.0.0.1:29291
for node in 1 2 3; do
    stop "$node"
    expect "$(grep -c 'stopped; everything is on disk' "$work/node-$node.log")" 1 "node $node ends in order"
    other=$((node % 3 + 1))
    seq $((500 + node)) $((500 + node)) | "$madang" produce numbers --server "127.0.0.1:2929$other"
    start "$node"
    expect "$(whole "$other" 3 0)" yes "node $node is in sync again"
done
expect "$("$madang" consume numbers --from-beginning --max 503 --server 127.0.0.1:29292 | sort -n | tr '\n' ' ')" "$(seq 1 503 | tr '\n' ' ')" "every record is there once"
kill -9 "$(process 2)"
seq 504 504 | "$madang" produce numbers --server 127.0.0.1:29293
expect "$(whole 3 3 0)" yes "a node that was killed is started again by its supervisor"
expect "$("$madang" consume numbers --from-beginning --max 504 --server 127.0.0.1:29292 | sort -n | tail -1)" 504 "what was written meanwhile is there"
# A node that dies again and again is left alone, and its last death is told like any other.
for _ in $(seq 300); do
    kill -0 "${pids[2]}" 2>/dev/null || break
    pid=$(process 2)
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    sleep 0.2
done
code=0
wait "${pids[2]}" || code=$?
expect "$code" 1 "a node that dies six times in a minute is left alone"
expect "$(grep -c 'the cluster knows of its death' "$work/node-2.log")" "$(grep -c 'ended (signal: 9' "$work/node-2.log")" "each of its deaths was told"
start 2
expect "$(whole 3 3 0)" yes "it comes back when it is started again"
for node in 1 2 3; do stop "$node"; done
echo "ok    an orderly stop of all"
echo "14 passed, 0 failed"
