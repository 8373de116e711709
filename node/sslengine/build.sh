#!/bin/sh
# Builds castellan-ssl-engine.jar from java/ (run by `make generate`). The same JDK gives the same bytes: fixed times,
# fixed order. The manifest carries the digest of the sources, which a test compares, so a forgotten build is noticed.
set -eu
cd "$(dirname "$0")"

# The oldest Kafka that Castellan runs: what compiles against it does not use what it lacks.
deps="$(./deps.sh 3.9.2)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

export LC_ALL=C
javac --release 11 -Xlint:all -Werror -proc:none -g:source,lines -cp "$deps/*" -d "$work/classes" java/dev/castellan/kafka/*.java
cat >"$work/manifest" <<MANIFEST
Created-By: node/sslengine/build.sh
Castellan-Source-SHA256: $(cat java/dev/castellan/kafka/*.java | sha256sum | cut -d' ' -f1)
MANIFEST
(cd "$work/classes" && find . -name '*.class' | sort >"$work/files")
(cd "$work/classes" && jar --create --file "$work/engine.jar" --date=2000-01-01T00:00:00Z --manifest "$work/manifest" @"$work/files")
mv "$work/engine.jar" castellan-ssl-engine.jar
