#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (default 20), two at a time. Installs cargo-fuzz if it is not there.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-20}
tools="$PWD/.cache/tools"
export PATH="$tools/bin:$PATH" RUSTC_BOOTSTRAP=1
command -v cargo-fuzz >/dev/null || env -u RUSTC_BOOTSTRAP cargo install --quiet --root "$tools" --version 0.13.2 --locked cargo-fuzz
cd fuzz
cargo fuzz build -D
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
run() {
    local outcome=ok
    cargo fuzz run -D "$1" -- -max_total_time="$2" -max_len=65536 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 >"$3/$1" 2>&1 || outcome=FAILED
    # A run that executed nothing has found nothing either.
    grep -q "stat::number_of_executed_units" "$3/$1" || outcome=FAILED
    grep -qE "ERROR|panicked|Test unit written" "$3/$1" && outcome=FAILED
    echo "--- fuzz $1, $2 s: $outcome"
    grep -E "ERROR|SUMMARY|panicked|stat::number_of_executed_units|Test unit written" "$3/$1" | sed 's/^/    /'
    [ "$outcome" = ok ] && touch "$3/$1.passed"
    return 0
}
export -f run
targets=$(cargo fuzz list)
echo "$targets" | xargs -P 2 -I '{}' bash -c "run {} $seconds $log"
passed=$(find "$log" -name '*.passed' | wc -l)
failed=$(($(echo "$targets" | wc -l) - passed))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
