#!/usr/bin/env bash
# Official clients against a ClickHouse address: clickhouse-connect with pandas, Arrow and SQLAlchemy, and the JDBC
# driver. What works on a server has to work on `weir clickhouse`; `make proof` runs this.
#
#   clients.sh HOST PORT   get the clients (once, into ${XDG_CACHE_HOME:-$HOME/.cache}/weir/clients), run both programs
#
# Needs Python 3.10 with venv, Java 17 and Maven.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/clients
[ $# = 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }

mkdir -p "$cache"
exec 9>"$cache/.lock"; flock 9
if [ ! -f "$cache/python/done" ]; then
  rm -rf "$cache/python"
  python3 -m venv "$cache/python"
  "$cache/python/bin/pip" install --quiet clickhouse-connect==1.12.0 pandas==3.1.1 pyarrow==26.0.1 SQLAlchemy==2.1.9
  touch "$cache/python/done"
fi
if [ ! -f "$cache/jdbc/done" ]; then
  rm -rf "$cache/jdbc"
  mvn --quiet --batch-mode -f "$here/jdbc-pom.xml" dependency:copy-dependencies -DoutputDirectory="$cache/jdbc/libs"
  touch "$cache/jdbc/done"
fi
exec 9>&-

echo "clickhouse-connect"
PYTHONDONTWRITEBYTECODE=1 "$cache/python/bin/python" "$here/python_client.py" "$1" "$2"
echo "JDBC"
classes=$(mktemp -d)
trap 'rm -rf "$classes"' EXIT
java -cp "$cache/jdbc/libs/*" org.eclipse.jdt.internal.compiler.batch.Main -17 -nowarn -d "$classes" "$here/JdbcClient.java"
java -cp "$cache/jdbc/libs/*:$classes" JdbcClient "$1" "$2"
