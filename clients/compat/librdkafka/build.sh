#!/usr/bin/env bash
# Builds librdkafka and its own test suite from the sources inside the crate rdkafka-sys 4.10.0+2.12.1.
# Prints the tests folder. Does nothing the second time.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
CRATE=rdkafka-sys
CRATE_VERSION=4.10.0+2.12.1
TREE="$CACHE/librdkafka-2.12.1"

fetch_sources() {
    # A throw-away package that pins the crate: `cargo vendor` copies exactly its sources, without building anything.
    local package="$CACHE/librdkafka-fetch"
    rm -rf "$package" "$TREE"
    mkdir -p "$package/src"
    : >"$package/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n%s = "=%s"\n' \
        "$CRATE" "$CRATE_VERSION" >"$package/Cargo.toml"
    (cd "$package" && cargo vendor -q vendor)
    cp -r "$package/vendor/$CRATE/librdkafka" "$TREE"
    rm -rf "$package"
}

build_all() {
    cd "$TREE"
    chmod +x configure lds-gen.py 2>/dev/null || true
    ./configure --disable-curl --disable-sasl
    make -j"$(nproc)" libs
    make -j"$(nproc)" -C tests build
}

apt_need /usr/include/zlib.h zlib1g-dev
apt_need /usr/include/openssl/ssl.h libssl-dev
apt_need /usr/include/zstd.h libzstd-dev
apt_need /usr/include/rapidjson/document.h rapidjson-dev
apt_need make make
apt_need g++ g++
once librdkafka-2.12.1-sources fetch_sources
once librdkafka-2.12.1-build nice -n 5 bash -c "$(declare -f build_all); set -e; TREE='$TREE' build_all"
echo "$TREE/tests"
