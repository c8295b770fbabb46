# Shared by every suite's run.sh: where the cache is, and how an address argument is read.
# Sourced, never run. Everything a suite downloads or builds lives under $CACHE, so a second run is quick.
COMPAT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
REPO="$(cd "$COMPAT/../.." && pwd)"
CACHE="${COMPAT_CACHE:-$REPO/.cache}"
KAFKA_VERSION=4.3.1
KAFKA_LIBS="$CACHE/kafka-$KAFKA_VERSION/libs"
SERVER="${MADANG_SERVER:-127.0.0.1:9092}"
mkdir -p "$CACHE"

# once NAME COMMAND...: runs COMMAND once per cache; concurrent callers wait for the first.
once() {
    local name="$1"
    shift
    [ -e "$CACHE/.done-$name" ] && return 0
    (
        flock 9
        [ -e "$CACHE/.done-$name" ] && exit 0
        "$@" >"$CACHE/$name.log" 2>&1 || { tail -20 "$CACHE/$name.log" >&2; exit 1; }
        touch "$CACHE/.done-$name"
    ) 9>"$CACHE/.lock-$name"
}

# apt_need COMMAND PACKAGE...: installs the packages if the command (or file) is missing.
apt_need() {
    local probe="$1"
    shift
    command -v "$probe" >/dev/null 2>&1 && return 0
    [ "${probe#/}" != "$probe" ] && [ -e "$probe" ] && return 0
    apt-get install -y -q "$@" >"$CACHE/apt.log" 2>&1 ||
        { apt-get update -q >"$CACHE/apt.log" 2>&1 && apt-get install -y -q "$@" >>"$CACHE/apt.log" 2>&1; } ||
        { tail -5 "$CACHE/apt.log" >&2; return 1; }
}
