#!/usr/bin/env bash
# All of librdkafka's own tests that must pass, those of its scenario `noautocreate` included, against a node that this script
# builds, starts and stops, and against three.
# usage: clients-long.sh      Ends in `N passed, N failed`; exits non-zero unless all passed. A test that skips itself has not passed.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/clients-node.sh"

build_node || exit 1
start_node num.partitions=4 group.initial.rebalance.delay.ms=3000 || exit 1
run_suite "librdkafka" "$COMPAT/librdkafka/run.sh" --server "$NODE" --jobs 6 ALLOW
stop_node
start_node num.partitions=4 group.initial.rebalance.delay.ms=3000 auto.create.topics.enable=false || exit 1
run_suite "librdkafka, noautocreate" "$COMPAT/librdkafka/run.sh" --server "$NODE" --jobs 2 --scenario noautocreate ALLOW
stop_node
start_cluster num.partitions=4 group.initial.rebalance.delay.ms=3000 || exit 1
run_suite "librdkafka, three nodes" "$COMPAT/librdkafka/run.sh" --server "$NODE" --jobs 6 ALLOW
stop_node
closing_line
