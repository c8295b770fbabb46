#!/usr/bin/env bash
# Kafka's own tool of this name, from Maven Central.
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/_run.sh" org.apache.kafka.tools.ClientMetricsCommand "$@"
