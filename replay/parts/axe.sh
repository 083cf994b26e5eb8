#!/usr/bin/env bash
# axe-core, which looks for what keeps people from using a page: for the tests of the console.
#
#   axe.sh fetch   get the npm package, check its sha256, keep axe.min.js in the cache folder (once); print its path
#                  as the last line
set -euo pipefail
version=4.14.1
sha256=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts/axe-core-$version

die() { echo "axe.sh: $*" >&2; exit 1; }

fetch() {
  if [ ! -f "$cache/axe.min.js" ]; then
    command -v npm >/dev/null || die "needs npm (Debian: apt-get install npm)"
    mkdir -p "$cache"
    exec 9>"$cache/.lock"; flock 9
    if [ ! -f "$cache/axe.min.js" ]; then
      scratch=$(mktemp -d "$cache/fetch.XXXXXX")
      trap 'rm -rf "$scratch"' EXIT
      (cd "$scratch" && npm pack --silent "axe-core@$version" >/dev/null) || die "npm pack axe-core@$version failed"
      tar -xzf "$scratch"/*.tgz -C "$scratch"
      echo "$sha256  $scratch/package/axe.min.js" | sha256sum --check --status ||
        die "axe.min.js of axe-core@$version doesn't have the sha256 $sha256"
      mv "$scratch/package/axe.min.js" "$cache/axe.min.js"
    fi
    exec 9>&-
  fi
  echo "$cache/axe.min.js"
}

case "${1:-}" in
  fetch) fetch ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
