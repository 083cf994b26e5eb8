#!/usr/bin/env bash
# The ClickHouse engine as a library (libchdb), for `weir clickhouse`.
#
#   clickhouse.sh fetch   get the npm package, check its sha256, keep libchdb.so in the cache folder (once,
#                         178 MB packed, 541 MiB on disk); print the library's path as the last line
#
# Parameters (environment):
#   WEIR_LIBCHDB  a library that is there already; nothing is fetched then
set -euo pipefail
package=@chdb/lib-linux-x64-gnu@26.7.3-stable.1
sha256=36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/libchdb-26.7.3

die() { echo "clickhouse.sh: $*" >&2; exit 1; }

fetch() {
  if [ -n "${WEIR_LIBCHDB:-}" ]; then
    [ -f "$WEIR_LIBCHDB" ] || die "WEIR_LIBCHDB names $WEIR_LIBCHDB, which isn't there"
    echo "$WEIR_LIBCHDB"
    return
  fi
  if [ ! -f "$cache/libchdb.so" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || die "the package is for Linux on x86_64, this is $(uname -sm)"
    command -v npm >/dev/null || die "needs npm (Debian: apt-get install npm)"
    mkdir -p "$cache"
    exec 9>"$cache/.lock"; flock 9
    if [ ! -f "$cache/libchdb.so" ]; then
      scratch=$(mktemp -d "$cache/fetch.XXXXXX")
      trap 'rm -rf "$scratch"' EXIT
      (cd "$scratch" && npm pack --silent "$package" >/dev/null) || die "npm pack $package failed"
      tar -xzf "$scratch"/*.tgz -C "$scratch"
      local found
      found=$(find "$scratch" -name libchdb.so | head -1)
      [ -n "$found" ] || die "$package holds no libchdb.so"
      echo "$sha256  $found" | sha256sum --check --status || die "libchdb.so of $package doesn't have the sha256 $sha256"
      mv "$found" "$cache/libchdb.so"
    fi
    exec 9>&-
  fi
  echo "$cache/libchdb.so"
}

case "${1:-}" in
  fetch) fetch ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
