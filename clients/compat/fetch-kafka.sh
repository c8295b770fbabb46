#!/usr/bin/env bash
# Puts the jars of Apache Kafka and its tools into a directory and prints its path. Once: later calls find them there, and concurrent calls wait.
# MADANG_KAFKA_LIBS names a directory that already holds them.
set -euo pipefail

version=4.3.1
if [[ -n "${MADANG_KAFKA_LIBS:-}" ]]; then
    [[ -f "$MADANG_KAFKA_LIBS/kafka-clients-$version.jar" ]] || {
        echo "MADANG_KAFKA_LIBS=$MADANG_KAFKA_LIBS has no kafka-clients-$version.jar" >&2
        exit 1
    }
    echo "$MADANG_KAFKA_LIBS"
    exit 0
fi

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
home="$repository/.cache/kafka-$version"
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if [[ ! -f "$home/complete" ]]; then
    command -v mvn >/dev/null || { echo "mvn is missing: install Maven and a JDK (17 or newer)" >&2; exit 1; }
    rm -rf "$home/libs"
    cat >"$home/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>madang</groupId>
  <artifactId>kafka-libs</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.24.3</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
POM
    mvn -q -B -Dstyle.color=never -f "$home/pom.xml" dependency:copy-dependencies -DoutputDirectory="$home/libs" >&2
    touch "$home/complete"
fi
echo "$home/libs"
