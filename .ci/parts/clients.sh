#!/usr/bin/env bash
# Unmodified Kafka clients and tools against a node that this script builds, starts and stops: kcat, confluent-kafka, aiokafka,
# KafkaJS, franz-go, kafka-clients 3.9.1 and 4.3.1, Kafka's command-line tools, and the smoke set of librdkafka's own tests; that set against three
# nodes too.
# usage: clients.sh [SUITE]...      Installs what the suites need. Ends in `N passed, N failed`; exits non-zero unless all passed.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/clients-node.sh"

SUITES=("$@")
[ $# -gt 0 ] || SUITES=(kcat python aiokafka javascript go java tools librdkafka)
build_node || exit 1

plain=()
smoke=
for suite in "${SUITES[@]}"; do
    if [ "$suite" = librdkafka ]; then smoke=yes; else plain+=("$suite"); fi
done
if [ ${#plain[@]} -gt 0 ]; then
    start_node group.initial.rebalance.delay.ms=0 || exit 1
    for suite in "${plain[@]}"; do
        run_suite "$suite" "$COMPAT/$suite/run.sh" "$NODE"
    done
    stop_node
fi
if [ -n "$smoke" ]; then
    start_node num.partitions=4 group.initial.rebalance.delay.ms=3000 || exit 1
    run_suite "librdkafka, smoke set" "$COMPAT/librdkafka/run.sh" --server "$NODE" SMOKE
    stop_node
    start_cluster num.partitions=4 group.initial.rebalance.delay.ms=3000 || exit 1
    run_suite "librdkafka, smoke set, three nodes" "$COMPAT/librdkafka/run.sh" --server "$NODE" SMOKE
    stop_node
fi
closing_line
