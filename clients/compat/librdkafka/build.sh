#!/usr/bin/env bash
# Builds librdkafka 2.15.1 and its own test suite from the sources inside the npm package @confluentinc/kafka-javascript 1.10.1.
# Prints the tests folder. Does nothing the second time.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
PACKAGE=@confluentinc/kafka-javascript@1.10.1
PACKAGE_SHA512=KVePUBn21EqCVP9mfxzEuM3SYJHHEF7X+iiC2e43QQgDSyEaksInmCGooT3w5q+cNAdkSCrK71j0ICfqoSqZLw==
TREE="$CACHE/librdkafka-2.15.1"

fetch_sources() {
    # `npm pack` fetches the package's archive and runs nothing that is in it.
    local folder="$CACHE/librdkafka-fetch"
    rm -rf "$folder" "$TREE"
    mkdir -p "$folder"
    (cd "$folder" && npm pack --silent "$PACKAGE")
    [ "$(cat "$folder"/*.tgz | openssl dgst -sha512 -binary | base64 -w0)" = "$PACKAGE_SHA512" ]
    tar -xzf "$folder"/*.tgz -C "$folder" package/deps/librdkafka
    mv "$folder/package/deps/librdkafka" "$TREE"
    rm -rf "$folder"
}

build_all() {
    cd "$TREE"
    chmod +x configure lds-gen.py 2>/dev/null || true
    ./configure --disable-curl --disable-sasl
    make -j"$(nproc)" libs
    make -j"$(nproc)" -C tests build
}

apt_need npm npm
apt_need /usr/include/zlib.h zlib1g-dev
apt_need /usr/include/openssl/ssl.h libssl-dev
apt_need /usr/include/zstd.h libzstd-dev
apt_need /usr/include/rapidjson/document.h rapidjson-dev
apt_need make make
apt_need g++ g++
once librdkafka-2.15.1-sources bash -c "$(declare -f fetch_sources); set -e; CACHE='$CACHE' PACKAGE='$PACKAGE' PACKAGE_SHA512='$PACKAGE_SHA512' TREE='$TREE' fetch_sources"
once librdkafka-2.15.1-build nice -n 5 bash -c "$(declare -f build_all); set -e; TREE='$TREE' build_all"
echo "$TREE/tests"
