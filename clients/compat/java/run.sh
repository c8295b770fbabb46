#!/usr/bin/env bash
# Round trip with Kafka's Java client, 3.9.1 and 4.3.1: one source, two class paths.
# usage: run.sh [HOST:PORT] [VERSION]...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
SERVER="${1:-$SERVER}"
shift || true
fetch() {
    mkdir -p "$CACHE/java-$1"
    cat >"$CACHE/java-$1/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>madang</groupId><artifactId>clients</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-clients</artifactId><version>$1</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
POM
    (cd "$CACHE/java-$1" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs)
}
apt_need mvn maven
apt_need javac openjdk-17-jdk-headless
STATUS=0
for version in ${*:-3.9.1 4.3.1}; do
    once "java-$version" fetch "$version"
    LIBS="$CACHE/java-$version/libs/*"
    CLASSES="$CACHE/java-$version/classes"
    if [ "$COMPAT/java/RoundTrip.java" -nt "$CLASSES/RoundTrip.class" ]; then
        javac -nowarn -cp "$LIBS" -d "$CLASSES" "$COMPAT/java/RoundTrip.java"
    fi
    echo "kafka-clients $version"
    java -Xmx256M -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$CLASSES:$LIBS" RoundTrip "$SERVER" || STATUS=1
done
exit $STATUS
