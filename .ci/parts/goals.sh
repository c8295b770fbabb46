#!/usr/bin/env bash
# Measures every row of the table of goals in docs/performance.md and prints the table. Wants a quiet machine, hours, java and python3.
#   .ci/parts/goals.sh             the rows that have no result yet, then the table of all
#   .ci/parts/goals.sh ROW...      these rows anew; `goals.sh list` names them, `goals.sh table` prints what is there
# PAIRS (5) runs of each side; STEADY and WARM (20, 5) seconds of each; ROUNDS (5) starts; LARGE_GIB (100) of the large log; LARGE_PARTITIONS (100000).
# PRELOAD_MIB (2048) of large fetches. GOALS names the folder of results (default: goals in the target folder); a row that failed has none. MADANG and MADANG_BENCH name binaries that are built already,
# MADANG_KAFKA_LIBS a folder with Kafka's jars.
set -uo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
pairs=${PAIRS:-5} steady=${STEADY:-20} warm=${WARM:-5} rounds=${ROUNDS:-5}
large_gib=${LARGE_GIB:-100} large_partitions=${LARGE_PARTITIONS:-100000}
goals="${GOALS:-$target/goals}"
mkdir -p "$goals"
rows=(produce fsync consume fetches latency requests memory start flat log cluster)

# cell ROW WHAT GOAL VALUE...: one line of the table.
cell() { printf '%s\t%s\t%s\n' "$1" "$2" "${*:3}" >>"$goals/$row.new"; }
# run NAME ARGUMENTS...: a scenario; its output is kept as $goals/$row-NAME.txt.
run() {
    log="$goals/$row-$1.txt"
    echo "--- $row: madang-bench run ${*:2}"
    "$bench" run "${@:2}" --out "$goals/runs" --with "time.warm_up_s=$warm" --with "time.steady_s=$steady" >"$log" || { tail -n 20 "$log"; return 1; }
}
# against NAME ARGUMENTS...: a scenario beside Kafka.
against() { run "$1" "${@:2}" --against kafka --pairs "$pairs" --kafka-libs "$libs"; }
floor() {
    log="$goals/$row-$1.txt"
    echo "--- $row: madang-bench floor ${*:2}"
    "$bench" floor "${@:2}" >"$log" || { tail -n 20 "$log"; return 1; }
}
# ratio METRIC: the median of the pairs' ratios in the last output, with the lowest and the highest.
ratio() {
    awk -v name="$1" '!found && (index($0, name ",") == 1 || index($0, name "  ") == 1) {
        rest = substr($0, 29); split(rest, field, " ")
        print field[3] " " field[4] " to " field[6]; found = 1
    } END { if (!found) print "not measured" }' "$log"
}
# inverse: a ratio of costs as one of rates.
inverse() { awk '{ gsub(/[()]/, ""); if (NF < 4) print; else printf "%.2f (%.2f to %.2f)\n", 1 / $1, 1 / $4, 1 / $2 }'; }
# report EXPRESSION: of the last run that was saved, with `runs` as its reports of the first side.
report() {
    python3 - "$(sed -n 's/^saved: //p' "$log")" "$1" <<'PYTHON'
import json, statistics, sys
runs = json.load(open(sys.argv[1] + "/report.json"))[0]
print(statistics.median(eval(sys.argv[2], {"run": run}) for run in runs))
PYTHON
}
mib() { awk '{ printf "%.1f MiB\n", $1 / 1048576 }'; }

produce() {
    local client
    floor floor produce --pairs "$((pairs * 4))" || return 1
    cell "produce, page-cache class: broker CPU per GiB, against a bare loop of recv, CRC-32C and write" "at most 1.5" "$(ratio 'CPU per GiB'), best turns $(ratio 'CPU per GiB, best' | cut -d' ' -f1)"
    for client in native librdkafka; do
        against "$client" hundred-partitions --client "$client" --with topics.partitions=6 || return 1
        cell "the same, $client client, against Kafka" "at most 1/6" "$(ratio 'broker CPU per GiB')"
        cell "produce, saturated throughput, broker on one core, $client client, against Kafka" "at least 3" "$(ratio 'produce throughput')$(bound)"
    done
}
# Whether the client, not the broker, was the bound.
bound() { if grep -q 'the client is the bound' "$log"; then echo " (the client is the bound)"; fi; }
fsync() {
    local count
    for count in 1 64 1000; do
        against "$count-defaults" durable-small-batches --with "topics.partitions=$count" --with 'broker.durability="defaults"' || return 1
        cell "produce, fsync class, 64 producers of small batches, $count partitions: throughput against Kafka that does not sync" "at least 1" "$(ratio 'produce throughput')"
        against "$count-fsync" durable-small-batches --with "topics.partitions=$count" || return 1
        cell "the same against Kafka with \`flush.messages=1\`" "at least 5" "$(ratio 'produce throughput')"
    done
}
consume() {
    floor floor consume --mib 512 --pairs "$((pairs * 4))" || return 1
    cell "consume, warm, large fetches: throughput against a bare sendfile loop" "at least 0.9" "$(ratio throughput), best turns $(ratio 'throughput, best' | cut -d' ' -f1)"
    cell "the same: CPU per GiB against that loop" "at most 1.2" "$(ratio 'CPU per GiB'), best turns $(ratio 'CPU per GiB, best' | cut -d' ' -f1)"
    floor tail consume --mib 512 --read-mib 12 --pairs "$((pairs * 4))" || return 1
    cell "the same within the last 16 MiB that were appended: throughput and CPU per GiB against that loop" "none" "$(ratio throughput); $(ratio 'CPU per GiB')"
    against kafka consume-warm --with "consumers.preload_mib=${PRELOAD_MIB:-2048}" || return 1
    cell "the same: broker CPU per GiB against Kafka" "at most 1" "$(ratio 'broker CPU per GiB')"
}
fetches() {
    against kafka consume-small-fetches || return 1
    cell "consume, one record of 1 KiB a fetch: broker CPU per request against Kafka" "at most 1/3" "$(ratio 'broker CPU per record')"
}
latency() {
    local rate percentile goal
    run saturated tail-readers --on kafka --kafka-libs "$libs" --with 'producers.rate="saturated"' --with producers.in_flight=1000 || return 1
    rate=$(report 'run["produce"]["count"] / run["window_s"] / 4' | cut -d. -f1)
    against page-cache tail-readers --with "producers.rate=$rate" || return 1
    for percentile in 50:1/2 99:1/3 99.9:1/5; do
        goal=${percentile#*:} percentile=${percentile%:*}
        cell "end to end at $rate records/s, a quarter of what Kafka can, page-cache class: p$percentile against Kafka" "at most $goal" "$(ratio "consume p$percentile")"
    done
    against fsync tail-readers-fsync --with "producers.rate=$rate" --with 'broker.durability="defaults"' || return 1
    cell "the same, fsync class against Kafka that does not sync: p99" "at most 1" "$(ratio 'consume p99')"
    floor echo echo --pairs "$((pairs * 8))" || return 1
    cell "round trip of a produce, page-cache class, at 500/s: p50 against a bare echo that writes" "none" "$(ratio 'round trip, p50'), best turns $(ratio 'round trip, p50, best' | cut -d' ' -f1)"
}
requests() {
    against kafka small-requests-saturated || return 1
    cell "small requests, 1,000 connections: requests per CPU second against Kafka" "at least 4" "$(ratio 'broker CPU per record' | inverse)"
}
memory() {
    local count goal hold=5000
    for count in 1:16 1000:64 "$large_partitions:2048"; do
        goal=${count#*:} count=${count%:*}
        run "$count" idle-cluster --with "topics.partitions=$count" || return 1
        cell "resident memory, idle, $count partition(s)" "at most $goal MiB" "$(report 'run["broker"]["usage"]["resident_bytes"]' | mib)"
    done
    run connections connection-storm --with producers.count=0 --with "connections.hold=$hold" || return 1
    cell "memory of an idle connection" "at most 16 KiB" "$(report "(run['broker']['usage']['resident_bytes'] - run['broker']['resident_idle_bytes']) / $hold / 1024" | awk '{ printf "%.1f KiB\n", $1 }')"
}
start() {
    log="$goals/$row-empty.txt"
    python3 clients/compat/perf/compare.py --madang "$MADANG" --only start --rounds "$((rounds * 10))" >"$log" || return 1
    cell "cold start to the first acknowledged write, empty" "100 ms" "$(awk -F' \\| ' '/madang, fsync/ { print $3 }' "$log")"
    log="$goals/$row-many.txt"
    python3 .ci/parts/cold_start.py "$MADANG" "${START_PARTITIONS:-10000}" "$rounds" >"$log" || return 1
    cell "the same, ${START_PARTITIONS:-10000} partitions, after an orderly stop" "2 s" "$(awk '$1 == "clean" { print $2 " ms (" $3 " to " $4 ")" }' "$log")"
    cell "the same after kill -9" "4 s" "$(awk '$1 == "killed" { print $2 " ms (" $3 " to " $4 ")" }' "$log")"
}
flat() {
    local count turn rate first="" values=()
    for count in 1 100 10000; do
        values=()
        for turn in $(seq "$pairs"); do
            run "$count-$turn" hundred-partitions --with "topics.partitions=$count" --with time.drain_s=120 || return 1
            values+=("$(report 'run["produce"]["bytes"] / run["window_s"] / 1048576')")
        done
        rate=$(printf '%s\n' "${values[@]}" | python3 -c 'import statistics, sys; print(statistics.median(float(line) for line in sys.stdin))')
        first=${first:-$rate}
        cell "throughput at $count partition(s)" "within 20 %" "$(awk -v rate="$rate" -v first="$first" 'BEGIN { printf "%.0f MiB/s, %.2f of that at 1", rate, rate / first }')"
    done
}
log() {
    local size
    for size in 1 "$large_gib"; do
        floor "$size" produce --fill-gib "$size" --pairs "$((pairs * 4))" || return 1
        cell "append to $size GiB of log: broker CPU per GiB, against the bare loop" "within 20 % of each other" "$(ratio 'CPU per GiB'), best turns $(ratio 'CPU per GiB, best' | cut -d' ' -f1)"
    done
}
cluster() {
    local mtu
    against large replicated || return 1
    cell "three nodes over QUIC, RF 3, datagrams of up to 6,500 bytes: CPU per GiB of the whole cluster against Kafka" "at most 1/3" "$(ratio 'broker CPU per GiB')"
    # 28 bytes of a datagram are IP's and UDP's. A loopback of its own, as the machine's is everybody's.
    mtu=$((1452 + 28))
    log="$goals/$row-small.txt"
    unshare -n bash -c "ip link set lo mtu $mtu && ip link set lo up && exec \"\$@\"" - "$bench" run replicated --out "$goals/runs" --against kafka \
        --pairs "$pairs" --kafka-libs "$libs" --with "time.warm_up_s=$warm" --with "time.steady_s=$steady" >"$log" || { tail -n 20 "$log"; return 1; }
    cell "the same, datagrams of up to 1,452 bytes" "at most 1/2" "$(ratio 'broker CPU per GiB')"
}

table() {
    local name
    echo "Commit $(git rev-parse --short HEAD), $(nproc) cores ($(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1)), $(uname -sr), $(rustc --version), $(date +%F), load $(cut -d' ' -f1-3 /proc/loadavg) now."
    echo "$pairs pairs, $steady s each. Medians of the pairs' ratios, and the range of them in brackets."
    printf '\n| | Goal | Measured | `goals.sh` |\n|---|---|---|---|\n'
    for name in "${rows[@]}"; do
        if [ -f "$goals/$name.tsv" ]; then
            awk -F'\t' -v name="$name" '{ printf "| %s | %s | %s | `%s` |\n", $1, $2, $3, name }' "$goals/$name.tsv"
        else
            printf '| (no result) | | | `%s` |\n' "$name"
        fi
    done
}

case "${1:-}" in
list) printf '%s\n' "${rows[@]}"; exit 0 ;;
table) table; exit 0 ;;
esac
wanted=("$@")
if [ $# -eq 0 ]; then
    for row in "${rows[@]}"; do [ -f "$goals/$row.tsv" ] || wanted+=("$row"); done
fi
for row in ${wanted[@]+"${wanted[@]}"}; do
    [[ " ${rows[*]} " == *" $row "* ]] || { echo "no row is called $row; goals.sh list names them" >&2; exit 2; }
done
libs=$(bash clients/compat/fetch-kafka.sh) || exit 1
if [ -z "${MADANG:-}" ]; then
    cargo build --release -p madang || exit 1
    MADANG="$target/release/madang"
fi
if [ -z "${MADANG_BENCH:-}" ]; then
    cargo build --release -p madang-load-tests --bin madang-bench || exit 1
    MADANG_BENCH="$target/release/madang-bench"
fi
export MADANG
bench="$MADANG_BENCH" failed=0
for row in ${wanted[@]+"${wanted[@]}"}; do
    rm -f "$goals/$row.new" "$goals/$row.tsv"
    # A side that moved nothing in its window has no ratio, and the row no result.
    if "$row" && ! grep -q 'not measured' "$goals/$row.new"; then mv "$goals/$row.new" "$goals/$row.tsv"; else echo "=== $row failed"; failed=$((failed + 1)); fi
done
echo
table
[ "$failed" -eq 0 ]
