#!/usr/bin/env bash
# The client in Rust against Apache Kafka: every story of its suite over TCP, and again over TLS. Starts a broker and stops it by its id.
# usage: sdk.sh [MADANG_BINARY]     the binary makes the certificates. Wants java.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target="${CARGO_TARGET_DIR:-target}"
binary="${1:-$target/debug/madang}"
port="${KAFKA_PORT:-31392}" kafka=
secret=$((port + 2))
folder="$(mktemp -d)"
finish() {
    [ -z "$kafka" ] || clients/compat/kafka/stop.sh "$kafka" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT
[ $# -gt 0 ] || cargo build --quiet -p madang
cargo build --quiet -p madang-client --features tls --example suite
suite="$target/debug/examples/suite"
"$binary" cert authority --dir "$folder/authority" >/dev/null
"$binary" cert quic --authority "$folder/authority" --host 127.0.0.1 --dir "$folder/broker" >/dev/null
# Kafka wants the key and the certificate in one file.
cat "$folder/broker/quic.key" "$folder/broker/quic.pem" >"$folder/broker.pem"
kafka="$(clients/compat/kafka/start.sh "$port" \
    "listeners=PLAINTEXT://127.0.0.1:$port,SSL://127.0.0.1:$secret,CONTROLLER://127.0.0.1:$((port + 1))" \
    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL" \
    ssl.keystore.type=PEM "ssl.keystore.location=$folder/broker.pem")"
echo "--- over TCP"
"$suite" "127.0.0.1:$port"
echo "--- over TLS"
"$suite" --ca "$folder/authority/ca.pem" "127.0.0.1:$secret"
