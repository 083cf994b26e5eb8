#!/usr/bin/env bash
# The real parts for a laptop and for tests: Apache Kafka, a schema registry, the ClickHouse engine; for tests
# also a server that speaks S3.
#
#   parts.sh fetch   get what is missing of them, and axe-core, into
#                    ${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts (once);
#                    quick when all is there
#
# `weir demo` and the integration tests start and stop them; by hand: kafka.sh, registry.sh, s3.sh, `weir clickhouse`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case "${1:-}" in
  fetch)
    for part in clickhouse kafka registry s3 axe; do
      echo "$part: $("$here/$part.sh" fetch | tail -1)" >&2
    done ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
