#!/usr/bin/env bash
# One real Apache Kafka node (KRaft, broker + controller in one JVM) on loopback.
#
#   kafka.sh fetch                    resolve the jars into the cache folder and make a class-data
#                                     archive of them, which halves the cpu time of every start (once)
#   kafka.sh start                    format the data folder if new, start, wait until ready,
#                                     print the bootstrap address as the last line
#   kafka.sh stop                     stop the node this data folder belongs to, by its pid
#   kafka.sh status                   pid, memory, cpu seconds; exit 1 when it is down
#   kafka.sh topic NAME [PARTS [K=V]] create a topic (default 8 partitions)
#   kafka.sh tool CLASS ARGS...       any main class of kafka-tools, for instance
#                                     org.apache.kafka.tools.GetOffsetShell
#   kafka.sh wipe                     stop and remove the data folder
#
# Parameters (environment):
#   KAFKA_PORT   broker port, default 19092; the controller listens on KAFKA_PORT+1
#   KAFKA_DATA   data folder, default ${TMPDIR:-/tmp}/weir-kafka-$KAFKA_PORT
#   KAFKA_JARS   jar cache, default ${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/kafka-<version>
#   KAFKA_HEAP   JVM heap, default 512m
#   KAFKA_JVM    further JVM flags; -XX:TieredStopAtLevel=1 starts fastest (for tests, not for
#                measurements)
#   KAFKA_CONF   file with further server properties, appended (the last one wins)
#   KAFKA_WAIT   seconds to wait for readiness, default 60
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka-pom.xml")
port=${KAFKA_PORT:-19092}
cport=$((port + 1))
data=${KAFKA_DATA:-${TMPDIR:-/tmp}/weir-kafka-$port}
jars=${KAFKA_JARS:-${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/kafka-$version}
heap=${KAFKA_HEAP:-512m}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
bootstrap=127.0.0.1:$port

die() { echo "kafka.sh: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "needs $1 (Debian: apt-get install $2)"; }
case $data in /*) ;; *) data=$PWD/$data ;; esac

# once, also when several starts race
jars() {
  need "$java" openjdk-17-jre-headless
  [ -f "$jars/.complete" ] && return 0
  need mvn maven
  mkdir -p "$jars"
  exec 9>"$jars/.lock"; flock 9
  [ ! -f "$jars/.complete" ] || return 0
  mvn -B -q -f "$here/kafka-pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars" >&2
  touch "$jars/.complete"
  exec 9>&-
}

# run a main class of the jars; short-lived, so the fast-start JVM flags
tool() {
  "$java" -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto \
    -Dweir.log.level=warn -Dlog4j2.configurationFile="$here/log4j2.properties" \
    -cp "$jars/*" "$@"
}

# the pid, only if it is still this data folder's node (a pid can be reused)
pid() {
  local p
  p=$(cat "$data/pid" 2>/dev/null) || return 1
  [ -r "/proc/$p/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF "kafka.Kafka $data/server.properties" || return 1
  echo "$p"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

# wait until the node of this data folder is ready, then print its address
await() {
  local until=$((SECONDS + ${KAFKA_WAIT:-60}))
  until grep -q 'Kafka Server started' "$data/server.log" && listening; do
    pid >/dev/null || kill -0 "$(cat "$data/pid")" 2>/dev/null || { tail -20 "$data/server.log" >&2; die "the node ended"; }
    [ $SECONDS -lt $until ] || { tail -20 "$data/server.log" >&2; stop; die "not ready in time"; }
    sleep 0.1
  done
  echo "$bootstrap"
}

start() {
  jars
  mkdir -p "$data"
  exec 8>"$data/.lock"; flock 8
  if pid >/dev/null; then exec 8>&-; await; return 0; fi
  # a node that was just killed may hold it for a moment
  for _ in $(seq 50); do listening || break; sleep 0.1; done
  ! listening || die "port $port is taken"
  cat >"$data/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$cport
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$cport
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$cport
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data/log
auto.create.topics.enable=false
num.partitions=8
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.segment.bytes=268435456
num.network.threads=2
num.io.threads=4
P
  [ -z "${KAFKA_CONF:-}" ] || cat "$KAFKA_CONF" >>"$data/server.properties"
  if [ ! -f "$data/log/meta.properties" ]; then
    local id
    # a Kafka uuid: 16 bytes, base64url without padding, not starting with '-'
    id=W$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c2-22)
    tool kafka.tools.StorageTool format --standalone -t "$id" -c "$data/server.properties" >"$data/format.log" 2>&1 \
      || { cat "$data/format.log" >&2; die "format failed"; }
  fi
  : >"$data/server.log"
  local flags=(-Xms"$heap" -Xmx"$heap" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Xshare:auto)
  if [ -f "$jars/kafka.jsa" ] && [[ ${KAFKA_JVM:-} != *ArchiveClassesAtExit* ]]; then
    flags+=(-XX:SharedArchiveFile="$jars/kafka.jsa")
  fi
  # shellcheck disable=SC2206
  flags+=(${KAFKA_JVM:-})
  nohup "$java" "${flags[@]}" \
    -Dlog4j2.configurationFile="$here/log4j2.properties" -Dkafka.logs.dir="$data" \
    -cp "$jars/*" kafka.Kafka "$data/server.properties" >"$data/server.log" 2>&1 </dev/null 8>&- &
  echo $! >"$data/pid"
  exec 8>&-
  await
}

# one start and stop of a throw-away node leaves the archive
archive() {
  local scratch at
  scratch=$(mktemp -d)
  at=$((20000 + RANDOM % 10000))
  KAFKA_DATA=$scratch KAFKA_PORT=$at KAFKA_CONF='' \
    KAFKA_JVM="-XX:ArchiveClassesAtExit=$jars/kafka.jsa" "$here/kafka.sh" start >/dev/null
  KAFKA_DATA=$scratch KAFKA_PORT=$at "$here/kafka.sh" stop
  rm -rf "$scratch"
}

stop() {
  local p
  p=$(pid) || { rm -f "$data/pid"; return 0; }
  kill "$p"
  for _ in $(seq 600); do [ -d "/proc/$p" ] || { rm -f "$data/pid"; return 0; }; sleep 0.1; done
  kill -9 "$p" 2>/dev/null || true
  rm -f "$data/pid"
}

status() {
  local p
  p=$(pid) || { echo "down"; return 1; }
  local t
  t=$(getconf CLK_TCK)
  echo "pid $p  bootstrap $bootstrap  rss_mib $(awk '/VmRSS/{print int($2/1024)}' "/proc/$p/status")" \
    " cpu_s $(sed 's/.*) //' "/proc/$p/stat" | awk -v t="$t" '{printf "%.1f", ($12+$13)/t}')" \
    " data_mib $(du -sm "$data" | cut -f1)"
}

cmd=${1:-}
[ $# -eq 0 ] || shift
case "$cmd" in
  fetch) jars; [ -f "$jars/kafka.jsa" ] || archive; echo "$jars" ;;
  start) start ;;
  stop) stop ;;
  status) status ;;
  topic)
    jars
    name=${1:?topic name}; parts=${2:-8}; shift; [ $# -eq 0 ] || shift
    conf=(); for kv in "$@"; do conf+=(--config "$kv"); done
    tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" --create --if-not-exists \
      --topic "$name" --partitions "$parts" --replication-factor 1 "${conf[@]}" ;;
  tool) jars; tool "$@" ;;
  wipe) stop; rm -rf "$data/log" "$data/server.properties" "$data/server.log" "$data/format.log"; rmdir "$data" 2>/dev/null || true ;;
  *) sed -n '2,26s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
