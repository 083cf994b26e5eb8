#!/usr/bin/env bash
# Installs the Debian packages that building and the real parts need, if any is missing: as root or with sudo;
# otherwise prints the one command to run. Says how to get Rust when cargo is missing.
set -euo pipefail
packages=(
  g++ make cmake clang libclang-dev pkg-config         # RocksDB, librdkafka
  libssl-dev libsasl2-dev libcurl4-openssl-dev zlib1g-dev
  curl npm openjdk-17-jre-headless maven               # Kafka, the registry, the ClickHouse engine
  openssl haproxy                                      # servers with TLS and passwords, for the tests
  python3-venv                                         # a server that speaks S3, and ClickHouse's clients of Python, for the tests
  chromium                                             # drives the console, for the tests
)

if ! command -v cargo >/dev/null; then
  echo "Rust is missing. Get it with" >&2
  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\"" >&2
  no_rust=1
fi

# satisfied by what the PATH has, too: a JDK or a compiler may come from elsewhere
has() {
  case $1 in
    g++) command -v g++ ;;
    make | cmake | clang | curl | npm | openssl | haproxy | chromium) command -v "$1" ;;
    pkg-config) command -v pkg-config ;;
    maven) command -v mvn ;;
    python3-venv) python3 -c 'import venv, ensurepip' 2>&1 ;;
    openjdk-17-jre-headless) command -v "${JAVA_HOME:+$JAVA_HOME/bin/}java" ;;
    *) return 1 ;;
  esac >/dev/null
}

missing=()
if command -v dpkg-query >/dev/null; then
  installed=" $(dpkg-query -W -f '${db:Status-Abbrev}${binary:Package} ' 2>/dev/null | sed 's/:[a-z0-9]*//g; s/ii \([^ ]*\)/\1/g') "
  for package in "${packages[@]}"; do
    [[ $installed == *" $package "* ]] || has "$package" || missing+=("$package")
  done
else
  for package in "${packages[@]}"; do
    [[ $package == lib* || $package == zlib* ]] || has "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "This isn't Debian: install what corresponds to ${missing[*]}, and the headers of OpenSSL, SASL, curl, zlib and libclang." >&2
    exit 1
  fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  echo "missing: ${missing[*]}" >&2
  install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" = 0 ]; then
    bash -c "export DEBIAN_FRONTEND=noninteractive; $install" >&2
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo bash -c "export DEBIAN_FRONTEND=noninteractive; $install" >&2
  else
    echo "Install them with" >&2
    echo "  sudo sh -c '$install'" >&2
    exit 1
  fi
fi
[ -z "${no_rust:-}" ] || exit 1
