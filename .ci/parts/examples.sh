#!/usr/bin/env bash
# Runs every command of examples/README.md (the programs in Rust as built, without cargo), and a few more, against a broker that it starts, and compares what
# they print. In the pipeline of three languages each group has to see every order of all of them once.
# usage: examples.sh [HOST:PORT]      The address of a broker that runs and is empty, Apache Kafka's for instance; MADANG is then only the command line.
# Invariant: only lines of the README go through `shown` and `begin`, and at the end none of the README's is left.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/clients-node.sh"
source "$COMPAT/lib.sh"
cd "$ROOT" || exit 1
README=examples/README.md
BINARY="${MADANG:-${CARGO_TARGET_DIR:-$ROOT/target}/release/madang}"
declare -A RUNNING
trap 'end_programs; stop_node; rm -rf -- "$WORK"' EXIT
: >"$WORK/ran"

end_programs() {
    local pid
    # Each is a `timeout`, which passes the signal on to what it runs.
    for pid in ${RUNNING[@]+"${RUNNING[@]}"}; do kill -TERM "$pid" 2>/dev/null; done
    wait ${RUNNING[@]+"${RUNNING[@]}"} 2>/dev/null
    RUNNING=()
}
pass() { PASSED=$((PASSED + 1)); echo "ok    $1"; }
fail() { FAILED=$((FAILED + 1)); echo "FAILED $1"; }
# same NAME: what NAME printed against standard input.
same() {
    if diff "$WORK/$1.out" - >"$WORK/diff"; then pass "$1"; else fail "$1"; cat "$WORK/diff" "$WORK/$1.err"; fi
}
# equal WHAT GOT EXPECTED
equal() { if [ "$2" = "$3" ]; then pass "$1"; else fail "$1: got '$2', expected '$3'"; fi; }
of_readme() {
    grep -qF -- "$1" "$README" || fail "no command of $README: $1"
    echo "$1" >>"$WORK/ran"
}
# What is built is run without cargo, which would wait for whatever else builds in the same directory.
BUILT="${CARGO_TARGET_DIR:-$ROOT/target}/debug"
built() { sed -E "s#^cargo run -p madang-examples --bin ([a-z_]+)( --)?#$BUILT/\\1#" <<<"$1"; }
# run NAME COMMAND: to its end, within 180 s; its output is kept under the name.
run() {
    timeout -k 5 180 bash -c "$(built "$2")" >"$WORK/$1.out" 2>"$WORK/$1.err" </dev/null && return 0
    fail "$1 ended with $?"
    tail -n 20 "$WORK/$1.out" "$WORK/$1.err"
    return 1
}
shown() { of_readme "$2" && run "$1" "$2"; }
# start NAME COMMAND, begin NAME COMMAND: beside what follows, until `finish NAME`, for five minutes at most.
start() {
    timeout -k 5 300 bash -c "$(built "$2")" >"$WORK/$1.out" 2>"$WORK/$1.err" </dev/null &
    RUNNING[$1]=$!
}
begin() { of_readme "$2" && start "$1" "$2"; }
finish() {
    local code=0
    wait "${RUNNING[$1]}" || code=$?
    unset "RUNNING[$1]"
    [ "$code" = 0 ] && return 0
    fail "$1 ended with $code"
    tail -n 20 "$WORK/$1.out" "$WORK/$1.err"
    return 1
}
rust() { echo "cargo run -p madang-examples --bin $*"; }

cargo build -q -p madang-examples || exit 1
if [ $# -gt 0 ]; then
    NODE="$1"
else
    start_node || exit 1
fi
export MADANG_SERVER="$NODE" PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# What has to be fetched and compiled, beside the programs in Rust.
apt_need python3 python3 python3-venv
apt_need mvn maven
make_venv="python3 -m venv examples/python/venv"
fill_venv="examples/python/venv/bin/pip install -r examples/python/requirements.txt"
make_jar="mvn -q -f examples/java/pom.xml package"
for line in "$make_venv" "$fill_venv" "$make_jar"; do of_readme "$line"; done
start maven "$make_jar"
start python "$make_venv && $fill_venv"

shown hello_producer "$(rust hello_producer)"
same hello_producer <<'OUT'
hello, world is at offset 0
hello, Kafka is at offset 1
hello, Madang is at offset 2
OUT
shown hello_consumer "$(rust hello_consumer)"
same hello_consumer <<'OUT'
0: hello, world
1: hello, Kafka
2: hello, Madang
OUT

# sums NAME: the lines after the last order.
sums() { grep -vE "^$1: [a-z]+-[0-9]+ " "$WORK/$1.out" | tr '\n' '|'; }
shown order_producer "$(rust order_producer -- orders)"
same order_producer <<<"rust: 10 orders written"
shown inventory "$(rust order_service -- inventory orders)"
equal "inventory's sums" "$(sums inventory)" "inventory: chair 6|inventory: desk 4|inventory: lamp 5|inventory: 10 orders in 10 records|"
shown billing "$(rust order_service -- billing orders)"
equal "billing's sums" "$(sums billing)" \
    "billing: ann 16000|billing: bob 37000|billing: cat 18500|billing: dan 13000|billing: 10 orders in 10 records|"
shown mail "$(rust order_service -- mail orders)"
equal "mail's sums" "$(sums mail)" "mail: ann 2|mail: bob 3|mail: cat 3|mail: dan 2|mail: 10 orders in 10 records|"
# A group goes on where it was: five more orders are all that it sees.
run order_producer "$(rust order_producer -- orders 5)"
run inventory "$(rust order_service -- inventory orders 5)"
equal "inventory goes on" "$(tail -n 1 "$WORK/inventory.out")" "inventory: 5 orders in 5 records"

shown log_shipper "$(rust log_shipper -- logs examples/data/web.log examples/data/database.log examples/data/mail.log)"
same log_shipper <<'OUT'
examples/data/web.log: 3 lines shipped
examples/data/database.log: 3 lines shipped
examples/data/mail.log: 2 lines shipped
OUT
shown log_reader "$(rust log_reader -- logs)"
same log_reader <<'OUT'
database.log  2025-01-01T08:59:58Z database starts
web.log  2025-01-01T09:00:00Z web starts
mail.log  2025-01-01T09:00:01Z mail starts
web.log  2025-01-01T09:00:03Z GET /cart 200
database.log  2025-01-01T09:00:05Z a query took 2 s
database.log  2025-01-01T09:00:06Z out of connections
web.log  2025-01-01T09:00:07Z GET /pay 500
mail.log  2025-01-01T09:00:08Z alarm to the one on duty
examples/data/database.log: 3 lines
examples/data/mail.log: 2 lines
examples/data/web.log: 3 lines
OUT
# A second run ships nothing. A file that is followed: what is added arrives, half a line does not.
run log_shipper "$(rust log_shipper -- logs examples/data/web.log)"
same log_shipper <<<"examples/data/web.log: 0 lines shipped"
printf '1 one\n2 two\n3 half' >"$WORK/grows.log"
start follower "$(rust log_shipper -- grown --follow "$WORK/grows.log")"
# arrives COUNT: waits until the reader has so many lines.
arrives() {
    for _ in $(seq 60); do
        "$BUILT/log_reader" grown >"$WORK/grown.out" 2>/dev/null && grep -q "grows.log: $1 lines" "$WORK/grown.out" && break
        sleep 0.25
    done
}
arrives 2
echo ' of it is whole' >>"$WORK/grows.log"
arrives 3
kill -INT "${RUNNING[follower]}"
finish follower && equal "a file that grows" "$(head -n 3 "$WORK/grown.out" | tr '\n' '|')" "grows.log  1 one|grows.log  2 two|grows.log  3 half of it is whole|"

shown activity_tracking "$(rust activity_tracking -- activity)"
same activity_tracking <<'OUT'
10 views
ann 09:00 to 09:10: / /lamps /cart
ann 10:00 to 10:01: / /orders
bob 09:03 to 09:33: / /desks
bob 10:04 to 10:04: /desks/7
cat 09:40 to 09:40: /
cat 10:11 to 10:11: /lamps
OUT
shown event_sourcing "$(rust event_sourcing -- accounts)"
same event_sourcing <<'OUT'
first life: 0 accounts known
first life: 4 events handled
first life: ann has 70
first life: bob has 70
first life: cat has 5
second life: 3 accounts known
second life: 4 events handled
second life: ann has 71
second life: bob has 50
second life: dan has 40
all events from the first on: the same
OUT
shown stream_processor "$(rust stream_processor -- stream)"
same stream_processor <<'OUT'
11 clicks
1 of bots, 1 of strangers, 1 too late
10:00 DE 1
10:00 PG 3
10:05 DE 1
10:05 PG 1
10:10 PG 1
10:40 DE 1
6 windows written to stream-counts
OUT
shown audit_replay "$(rust audit_replay -- audit 9 12)"
same audit_replay <<'OUT'
48 actions recorded
09:00 cat exports customers (request 18)
09:30 root logs out (request 19)
10:00 ann reads the payroll (request 20)
10:30 bob changes a role (request 21)
11:00 cat logs in (request 22)
11:30 root exports customers (request 23)
6 actions from 09:00 to 12:00
OUT
shown device_fan_in "$(rust device_fan_in -- devices 100 20)"
same device_fan_in <<'OUT'
100 devices wrote 2000 readings
2000 readings of 100 devices read
100 devices are complete and in order
device-082 is the hottest: 32 degrees on average
OUT
shown feature_feed "$(rust feature_feed -- features)"
same feature_feed <<'OUT'
batch: 20 shops, shop-07 has orders=24 stars=1
live: 6 of 6 changes, 23 shops, shop-07 has orders=25 stars=2
the next batch: the same as live
OUT
# Who runs one twice hears what to do.
timeout 60 bash -c "$(built "$(rust feature_feed -- features)")" >"$WORK/again" 2>&1 && fail "feature_feed took a topic that exists"
equal "a topic that exists" "$(grep -c 'give another name' "$WORK/again")" 1

# Three languages, one topic.
finish python && pass "the packages of Python"
finish maven && pass "the programs in Java"
TOPIC=orders-of-three
begin inventory "$(rust order_service -- inventory $TOPIC 30)"
begin billing "examples/python/venv/bin/python examples/python/billing.py $TOPIC 30"
begin mail "java -jar examples/java/target/orders.jar mail $TOPIC 30"
begin from_java "java -jar examples/java/target/orders.jar produce $TOPIC 10"
begin from_python "examples/python/venv/bin/python examples/python/order_producer.py $TOPIC 10"
begin from_rust "$(rust order_producer -- $TOPIC 10)"
for source in java python rust; do finish "from_$source"; done
equal "orders of three languages" "$(cat "$WORK"/from_*.out | sort | tr '\n' '|')" "java: 10 orders written|python: 10 orders written|rust: 10 orders written|"
all=$(for source in java python rust; do for number in $(seq 10); do echo "$source-$number"; done; done | sort | tr '\n' ' ')
for service in inventory billing mail; do
    finish "$service"
    equal "$service handles every order once" "$(sed -nE "s/^$service: ([a-z]+-[0-9]+) .*/\1/p" "$WORK/$service.out" | sort | tr '\n' ' ')" "$all"
    equal "$service is given every order once" "$(tail -n 1 "$WORK/$service.out")" "$service: 30 orders in 30 records"
    # And nothing is left to be given again.
    equal "$service has committed all" "$("$BINARY" group describe "$TOPIC-$service" --output json |
        python3 -c 'import json, sys; o = json.load(sys.stdin)["offsets"]; print(sum(p["committed_offset"] for p in o), sum(p["lag"] for p in o))')" "30 0"
done
equal "the sums of the three" "$(for service in inventory billing mail; do sums $service; done)" \
    "inventory: chair 18|inventory: desk 12|inventory: lamp 15|inventory: 30 orders in 30 records|billing: ann 48000|billing: bob 111000|billing: cat 55500|billing: dan 39000|billing: 30 orders in 30 records|mail: ann 6|mail: bob 9|mail: cat 9|mail: dan 6|mail: 30 orders in 30 records|"
equal "each customer is in one partition" "$("$BINARY" consume $TOPIC --from-beginning --max 30 --output json |
    python3 -c 'import json, sys; print(len({(r["key"], r["partition"]) for r in map(json.loads, sys.stdin)}))')" 4

left=$(grep -oP '(?<=`|^)(cargo run|python3|mvn|java|examples/python/venv/bin/\w+) [^`]*' "$README" | grep -vxFf "$WORK/ran")
equal "commands of the README that were not run" "$left" ""
[ $# -gt 0 ] || stop_node
closing_line
