#!/bin/sh
# Prints the folder with the kafka-clients jar of version $1 and what it needs, fetched through Maven when not yet cached.
set -eu
cd "$(dirname "$0")"
deps="${CASTELLAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/castellan}/sslengine/$1"
if [ ! -d "$deps" ]; then
	mkdir -p "$(dirname "$deps")"
	work="$(mktemp -d "$deps.XXXXXX")"
	trap 'rm -rf "$work"' EXIT
	sed "s/KAFKA_VERSION/$1/" pom.xml >"$work/pom.xml"
	mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/jars" >&2
	# Somebody else may have been quicker; theirs is as good.
	mv -T "$work/jars" "$deps" 2>/dev/null || [ -d "$deps" ]
fi
echo "$deps"
