#!/usr/bin/env bash
# The system packages that Weir and its local parts need (Debian's names).
#
#   packages.sh            install what is missing: as root, or with sudo; else print the one command to run
#   packages.sh missing    print what is missing, and exit 1 if anything is
set -euo pipefail
# librdkafka and RocksDB are compiled from source (clang, make; bindgen wants libclang), TLS is the system's OpenSSL.
wanted="clang libclang-dev make pkg-config libssl-dev zlib1g-dev curl npm openjdk-17-jre-headless maven git ca-certificates"

missing=()
for package in $wanted; do
  # A JRE of any kind, or npm from elsewhere, is as good as the package.
  case $package in
    openjdk-17-jre-headless) command -v java >/dev/null && continue ;;
    npm | maven | curl | git | make) command -v "${package/maven/mvn}" >/dev/null && continue ;;
  esac
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done

if ! command -v cargo >/dev/null; then
  echo "packages.sh: Rust is missing. Install it from https://rustup.rs, then try again." >&2
  exit 1
fi
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "${1:-}" = missing ]; then
  printf '%s\n' "${missing[@]}"
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "packages.sh: install these (Debian's names), then try again: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then
  as_root=()
elif sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
  as_root=(sudo)
else
  echo "packages.sh: system packages are missing. Run this, then try again:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
