# What the parts that run other people's clients share: a node on a free port, stopped by its process id, and the count of results.
# Sourced, never run. Invariant: whatever ends the script, the node ends with it and its data is removed.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
COMPAT="$ROOT/clients/compat"
PASSED=0
FAILED=0
WORK="$(mktemp -d)"
NODE=
NODE_PID=
trap 'stop_node; rm -rf -- "$WORK"' EXIT
trap 'exit 130' INT TERM

build_node() {
    (cd "$ROOT" && cargo build -q --release -p madang) || { echo "madang does not build"; return 1; }
    BINARY="${CARGO_TARGET_DIR:-$ROOT/target}/release/madang"
}

# start_node KEY=VALUE...: sets NODE to its address once it serves. The ports are the system's choice, so nothing collides.
start_node() {
    local settings=() setting
    for setting in "$@"; do settings+=(--set "$setting"); done
    rm -rf -- "$WORK/data"
    : >"$WORK/out"
    "$BINARY" start --data "$WORK/data" --listen 127.0.0.1:0 --set madang.admin.listener=127.0.0.1:0 "${settings[@]}" \
        >"$WORK/out" 2>"$WORK/log" &
    NODE_PID=$!
    for _ in $(seq 300); do
        NODE="$(sed -n 's/^ *Kafka listener *//p' "$WORK/out")"
        [ -n "$NODE" ] && return 0
        kill -0 "$NODE_PID" 2>/dev/null || break
        sleep 0.1
    done
    echo "the node does not start:"
    tail -20 "$WORK/log"
    return 1
}

# start_cluster KEY=VALUE...: three nodes instead of one; sets NODE to the address of the first once all of them serve.
start_cluster() {
    local settings=() setting base
    for setting in "$@"; do settings+=(--set "$setting"); done
    rm -rf -- "$WORK/data"
    : >"$WORK/out"
    base=$(python3 - <<'EOF'
import socket
def free(port, kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False
def fits(base):
    tcp = [base + n + more for n in range(3) for more in (0, 1000)]
    udp = [base + 2000 + n for n in range(6)]
    return all(free(port, socket.SOCK_STREAM) for port in tcp) and all(free(port, socket.SOCK_DGRAM) for port in udp)
print(next(base for base in range(21092, 29000, 10) if fits(base)))
EOF
    ) || return 1
    "$BINARY" cluster dev --nodes 3 --data "$WORK/data" --base-port "$base" "${settings[@]}" >"$WORK/out" 2>"$WORK/log" &
    NODE_PID=$!
    for _ in $(seq 600); do
        if grep -q '3 nodes serve' "$WORK/out"; then
            NODE="127.0.0.1:$base"
            return 0
        fi
        kill -0 "$NODE_PID" 2>/dev/null || break
        sleep 0.1
    done
    echo "the cluster does not start:"
    tail -n 20 "$WORK/log" "$WORK"/data/node-*/node.log
    return 1
}

# A node that has died on its own, or does not end within its time, is a failure.
stop_node() {
    [ -n "$NODE_PID" ] || return 0
    local pid="$NODE_PID"
    NODE_PID=
    if kill -TERM "$pid" 2>/dev/null; then
        for _ in $(seq 200); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null && { FAILED=$((FAILED + 1)) && echo "FAILED the node does not end"; }
    fi
    local code=0
    wait "$pid" || code=$?
    if [ "$code" != 0 ]; then
        FAILED=$((FAILED + 1))
        echo "FAILED the node ended with $code:"
        tail -20 "$WORK/log"
    fi
    grep -E 'panicked|ERROR' "$WORK/log" | head -20
    return 0
}

# run_suite NAME COMMAND...: shows what the suite says and adds up its `N passed, M failed` lines.
run_suite() {
    local name="$1" status=0 began=$SECONDS passed failed
    shift
    echo "== $name"
    "$@" >"$WORK/suite" 2>&1 </dev/null || status=$?
    # Maven leaves colour codes before the first line that follows it.
    sed -i 's/\x1b\[[0-9;]*m//g' "$WORK/suite"
    cat "$WORK/suite"
    read -r passed failed < <(awk '/^[0-9]+ passed, [0-9]+ failed/ { p += $1; f += $3 } END { print p + 0, f + 0 }' "$WORK/suite")
    # An exit code that no counted failure explains, or a suite that counted nothing, is a failure of its own.
    if [ "$failed" = 0 ] && { [ "$status" != 0 ] || [ "$passed" = 0 ]; }; then
        failed=1
        echo "FAILED $name: exit code $status"
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    echo "== $name took $((SECONDS - began)) s"
}

closing_line() {
    echo "$PASSED passed, $FAILED failed"
    [ "$FAILED" = 0 ]
}
