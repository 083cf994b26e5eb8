#!/usr/bin/env bash
# The ClickHouse engine as a shared library, libchdb.so, from its npm package.
#
#   clickhouse.sh fetch    get it into the cache folder (once, 178 MB packed) and print its path
#
# Parameters (environment):
#   WEIR_LIBCHDB   a libchdb.so of your own: nothing is fetched
set -euo pipefail
package=@chdb/lib-linux-x64-gnu
version=26.7.3-stable.1
sha256=36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5
folder=${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/libchdb-${version%%-*}
library=$folder/libchdb.so

die() { echo "clickhouse.sh: $*" >&2; exit 1; }

fetch() {
  if [ -n "${WEIR_LIBCHDB:-}" ]; then
    [ -f "$WEIR_LIBCHDB" ] || die "WEIR_LIBCHDB names $WEIR_LIBCHDB, which isn't there"
    echo "$WEIR_LIBCHDB"
    return
  fi
  if [ ! -f "$library" ]; then
    command -v npm >/dev/null || die "needs npm (Debian: apt-get install npm)"
    mkdir -p "$folder"
    # Once, also when several fetch at a time.
    exec 9>"$folder/.lock"; flock 9
    if [ ! -f "$library" ]; then
      local work
      work=$(mktemp -d "$folder/fetch.XXXXXX")
      trap 'rm -rf "$work"' EXIT
      (cd "$work" && npm pack --silent "$package@$version" >/dev/null && tar -xzf ./*.tgz) \
        || die "npm could not fetch $package@$version: check the network, then try again"
      local found
      found=$(find "$work" -name libchdb.so | head -1)
      [ -n "$found" ] || die "$package@$version holds no libchdb.so"
      echo "$sha256  $found" | sha256sum --check --quiet - >&2 || die "libchdb.so is not the one that was checked: not kept"
      mv "$found" "$library"
    fi
    exec 9>&-
  fi
  echo "$library"
}

case "${1:-}" in
  fetch) fetch ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
