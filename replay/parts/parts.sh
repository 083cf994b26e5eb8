#!/usr/bin/env bash
# Real parts for a laptop and for tests, from package registries: Kafka, a schema registry, the ClickHouse engine.
#
#   parts.sh fetch    get everything into the cache folder; quick when it is there
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts

case "${1:-}" in
  fetch)
    jars=$("$here/kafka.sh" jars | tail -1)
    # The class-data archive halves the CPU time of every later start.
    [ -f "$jars/kafka.jsa" ] || "$here/kafka.sh" cds >/dev/null 2>&1 || true
    "$here/registry.sh" app >/dev/null
    "$here/clickhouse.sh" fetch >/dev/null
    echo "parts are in $cache"
    ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
