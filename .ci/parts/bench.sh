#!/usr/bin/env bash
# madang-bench in a short form: a produce, a consume and a latency scenario against a node that it starts, each with its verification, and what is
# done with their results. Under 90 s beside the builds. No figure of it decides anything: the machine is shared. MADANG names a binary that is built already.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
cargo build --quiet -p madang-load-tests --bin madang-bench
if [ -z "${MADANG:-}" ]; then
    cargo build --quiet --release -p madang
    MADANG="$target/release/madang"
fi
export MADANG
bench="$target/debug/madang-bench"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

short=(--out "$out" --with time.warm_up_s=1 --with time.steady_s=5 --with time.drain_s=30)
run() { echo "--- $*"; "$bench" run "$@" "${short[@]}"; }
run one-hot-partition --with producers.in_flight=200
run consume-warm --with consumers.preload_mib=32
run tail-readers --with producers.rate=500
run tail-readers --with producers.rate=500 --client librdkafka

# What was saved can be read again, and two runs set side by side.
mapfile -t tail < <(find "$out" -mindepth 1 -maxdepth 1 -type d -name '*tail-readers*' | sort)
[ "${#tail[@]}" -eq 2 ]
"$bench" report "${tail[0]}" >"$out/table"
grep -q '^verification *sound' "$out/table"
"$bench" compare --out "$out" "${tail[0]}" "${tail[1]}"
for folder in "${tail[@]}"; do
    grep -q '<polyline' "$folder/report.html"
done
# A scenario that is wrong is refused before anything starts.
if "$bench" run tail-readers --with records.size=1 --out "$out" 2>"$out/refused"; then
    echo "a record of one byte was not refused"
    exit 1
fi
grep -q 'records.size' "$out/refused"
