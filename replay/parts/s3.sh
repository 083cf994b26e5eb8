#!/usr/bin/env bash
# A server that speaks S3 (moto), for tests of the archive.
#
#   s3.sh fetch          put moto and what it needs from PyPI into the cache folder (once); print the server's path
#   s3.sh serve PORT     serve S3 on 127.0.0.1:PORT until it is ended; buckets are in memory
set -euo pipefail
version=5.2.5
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/moto-$version

die() { echo "s3.sh: $*" >&2; exit 1; }

fetch() {
  if [ ! -x "$cache/bin/moto_server" ]; then
    command -v python3 >/dev/null || die "needs python3 with venv (Debian: apt-get install python3-venv)"
    mkdir -p "$(dirname "$cache")"
    exec 9>"$cache.lock"; flock 9
    if [ ! -x "$cache/bin/moto_server" ]; then
      rm -rf "$cache"
      # Scripts of an environment name its folder, so that it is made in its place; the server comes last.
      python3 -m venv "$cache" || die "python3 can't make an environment (Debian: apt-get install python3-venv)"
      "$cache/bin/pip" install --quiet --disable-pip-version-check "moto[s3,server]==$version" >&2 ||
        die "pip can't install moto $version"
    fi
    exec 9>&-
  fi
  echo "$cache/bin/moto_server"
}

case "${1:-}" in
  fetch) fetch ;;
  serve) exec "$(fetch)" -H 127.0.0.1 -p "${2:?a port}" ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
