#!/usr/bin/env bash
# Does by hand what docs/operations.md says of a node that grows: alone, among three, with three votes and three replicas; then the first dies for good.
set -euo pipefail
cd "$(dirname "$0")/../.."
madang="${MADANG:-${CARGO_TARGET_DIR:-target}/release/madang}"
work=$(mktemp -d)
declare -A pids
passed=0
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$work"' EXIT
expect() {
    if [ "$1" != "$2" ]; then echo "FAILED $3: got '$1', expected '$2'"; tail -n 5 "$work"/*.log; exit 1; fi
    echo "ok    $3"
    passed=$((passed + 1))
}
start() { "$madang" start --config "$work/node-$1.properties" >>"$work/node-$1.log" 2>&1 & pids[$1]=$!; }
stop() { kill -TERM "${pids[$1]}"; wait "${pids[$1]}"; unset "pids[$1]"; }
status() { "$madang" cluster status --server "127.0.0.1:2939$1"; }
# Whether node $1 says what $2 matches within half a minute.
says() {
    for _ in $(seq 150); do
        if status "$1" >"$work/status" 2>/dev/null && grep -qE "$2" "$work/status"; then
            echo yes
            return
        fi
        sleep 0.2
    done
    cat "$work/status"
}
# How many nodes vote, as node $1 knows, once it knows that $2 do.
votes() {
    local seen=0
    for _ in $(seq 100); do
        seen=$(status "$1" | grep -c broker,controller)
        [ "$seen" = "$2" ] && break
        sleep 0.1
    done
    echo "$seen"
}
basic() {
    cat <<EOF
node.id=$1
listeners=PLAINTEXT://127.0.0.1:2939$1
madang.admin.listener=127.0.0.1:3039$1
log.dirs=$work/data-$1
num.partitions=4
EOF
}
connected() {
    cat <<EOF
madang.node.listener=127.0.0.1:3139$((2 * $1))
madang.node.certificates=$work/certificates-$1
controller.quorum.voters=1@127.0.0.1:31393
EOF
}
read_all() { "$madang" consume numbers --from-beginning --max "$2" --server "127.0.0.1:2939$1" | sort -n | uniq | wc -l; }

basic 1 >"$work/node-1.properties"
start 1
expect "$(says 1 '1 +[0-9]+ .*serving')" yes "a node alone"
seq 1 300 | "$madang" produce numbers --server 127.0.0.1:29391
expect "$("$madang" consume numbers --group readers --from-beginning --max 100 --server 127.0.0.1:29391 | wc -l)" 100 "a group commits"
cluster=$("$madang" cluster status --server 127.0.0.1:29391 --output json | python3 -c 'import json, sys; print(json.load(sys.stdin)["cluster_id"])')

"$madang" cert authority --dir "$work/authority" --cluster-id "$cluster" >/dev/null
for node in 1 2 3; do
    "$madang" cert node --authority "$work/authority" --node "$node" --dir "$work/certificates-$node" >/dev/null
    { basic "$node" && connected "$node"; } >"$work/node-$node.properties"
done
stop 1
start 1
expect "$(says 1 '1 +[0-9]+ .*serving')" yes "it restarts with a certificate"
start 2
start 3
for node in 2 3; do expect "$(says 1 "$node +[0-9]+ .*broker +serving")" yes "node $node copies the metadata and serves"; done
"$madang" cluster join --nodes 2,3 --server 127.0.0.1:29391
for node in 1 2 3; do expect "$(votes "$node" 3)" 3 "node $node knows of three votes"; done
"$madang" cluster raise-replication 3 --server 127.0.0.1:29392
expect "$(says 1 ' 0 under replicated, 0 under min isr, 0 offline')" yes "every partition has three replicas in sync"
"$madang" cluster elect-leaders --server 127.0.0.1:29392 >/dev/null

# The third loses its disk: an empty directory takes its place.
kill -9 "${pids[3]}"
wait "${pids[3]}" 2>/dev/null || true
rm -rf "$work/data-3"
"$madang" cluster leave --nodes 3 --server 127.0.0.1:29391
expect "$(votes 1 2)" 2 "a dead voter leaves"
sed -i 's/^controller.quorum.voters=.*/controller.quorum.voters=1@127.0.0.1:31393,2@127.0.0.1:31395/' "$work/node-3.properties"
start 3
expect "$(says 3 '3 +[0-9]+ .*broker +serving')" yes "it comes back with an empty directory"
"$madang" cluster join --nodes 3 --server 127.0.0.1:29391
expect "$(votes 2 3)" 3 "and votes again"
expect "$(says 1 ' 0 under replicated, 0 under min isr, 0 offline')" yes "it has copied all that it is to hold"

# The first node dies while a producer writes.
for number in $(seq 301 600); do echo "$number" && sleep 0.02; done | "$madang" produce numbers --server 127.0.0.1:29392 &
producer=$!
sleep 2
kill -9 "${pids[1]}"
wait "${pids[1]}" 2>/dev/null || true
unset "pids[1]"
rm -rf "$work/data-1"
wait "$producer"
expect "$(read_all 2 600)" 600 "every record is there, and the producer went on"
"$madang" cluster leave --nodes 1 --server 127.0.0.1:29392
expect "$(votes 3 2)" 2 "two vote"
for topic in numbers __consumer_offsets; do "$madang" cluster reassign --topic "$topic" --replicas 2,3 --server 127.0.0.1:29392 >/dev/null; done
expect "$(says 3 ' 0 under replicated, 0 under min isr, 0 offline')" yes "nothing waits for the dead node"
"$madang" cluster forget --node 1 --server 127.0.0.1:29393 >/dev/null
"$madang" consume numbers --group readers --max 500 --server 127.0.0.1:29393 | wc -l >"$work/rest"
expect "$(cat "$work/rest")" 500 "the group goes on where it was"
for node in 2 3; do
    stop "$node"
    start "$node"
    expect "$(says "$((5 - node))" ' 0 under replicated, 0 under min isr, 0 offline')" yes "node $node restarts, though its file names a dead voter"
done
expect "$(read_all 3 600)" 600 "every record is there still"
for node in 2 3; do stop "$node"; done
echo "$passed passed, 0 failed"
