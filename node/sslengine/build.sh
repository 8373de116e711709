#!/bin/sh
# Builds castellan-ssl-engine.jar from java/ (run by `make generate`). The same JDK gives the same bytes: fixed times,
# fixed order. The manifest carries the digest of the sources, which a test compares, so a forgotten build is noticed.
set -eu
cd "$(dirname "$0")"

# The oldest Kafka that Castellan runs: what compiles against it does not use what it lacks.
kafka=3.9.2
deps="${CASTELLAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/castellan}/sslengine/$kafka"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

if [ ! -d "$deps" ]; then
	mkdir -p "$(dirname "$deps")"
	sed "s/KAFKA_VERSION/$kafka/" pom.xml >"$work/pom.xml"
	mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/deps"
	mv "$work/deps" "$deps"
fi

export LC_ALL=C
javac --release 11 -Xlint:all -Werror -proc:none -g:source,lines -cp "$deps/*" -d "$work/classes" java/dev/castellan/kafka/*.java
cat >"$work/manifest" <<MANIFEST
Created-By: node/sslengine/build.sh
Castellan-Source-SHA256: $(cat java/dev/castellan/kafka/*.java | sha256sum | cut -d' ' -f1)
MANIFEST
(cd "$work/classes" && find . -name '*.class' | sort >"$work/files")
(cd "$work/classes" && jar --create --file "$work/engine.jar" --date=2000-01-01T00:00:00Z --manifest "$work/manifest" @"$work/files")
mv "$work/engine.jar" castellan-ssl-engine.jar
