#!/usr/bin/env bash
# Prometheus and promtool, for the tests of the boards and rules: the programs alone, without Debian's service.
#
#   prometheus.sh fetch   print the folder that holds both as the last line: where the PATH has them, else a copy that is
#                         taken out of Debian's package (once, 19 MB packed)
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/prometheus

die() { echo "prometheus.sh: $*" >&2; exit 1; }

fetch() {
  if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    dirname "$(command -v promtool)"
    return
  fi
  if [ ! -x "$cache/promtool" ]; then
    command -v apt-get >/dev/null || die "this isn't Debian: put prometheus and promtool into the PATH"
    mkdir -p "$cache"
    exec 9>"$cache/.lock"; flock 9
    if [ ! -x "$cache/promtool" ]; then
      scratch=$(mktemp -d "$cache/fetch.XXXXXX")
      trap 'rm -rf "$scratch"' EXIT
      get() { (cd "$scratch" && apt-get download -q prometheus >&2); }
      # A machine that was just made has no lists of packages yet.
      get || { [ "$(id -u)" = 0 ] && apt-get update -q >&2 && get; } || die "apt-get download prometheus failed"
      dpkg-deb -x "$scratch"/prometheus_*.deb "$scratch/x"
      mv "$scratch/x/usr/bin/prometheus" "$cache/"
      mv "$scratch/x/usr/bin/promtool" "$cache/"
    fi
    exec 9>&-
  fi
  echo "$cache"
}

case "${1:-}" in
  fetch) fetch ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
