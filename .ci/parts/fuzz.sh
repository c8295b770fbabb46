#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (default 20). Installs cargo-fuzz if it is not there.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-20}
tools="$PWD/.cache/tools"
export PATH="$tools/bin:$PATH" RUSTC_BOOTSTRAP=1
command -v cargo-fuzz >/dev/null || env -u RUSTC_BOOTSTRAP cargo install --quiet --root "$tools" --version 0.13.2 --locked cargo-fuzz
cd fuzz
cargo fuzz build -D
failed=0 passed=0
for target in $(cargo fuzz list); do
    echo "--- fuzz $target, $seconds s"
    if cargo fuzz run -D "$target" -- -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 2>&1 |
        grep -E "ERROR|SUMMARY|panicked|stat::number_of_executed_units|Test unit written" | tee /tmp/madang-fuzz-$$.log | sed 's/^/    /' &&
        ! grep -qE "ERROR|panicked|Test unit written" /tmp/madang-fuzz-$$.log; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    rm -f /tmp/madang-fuzz-$$.log
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
