#!/usr/bin/env bash
# Writes the boards anew with Grafana's Foundation SDK, whose types are Grafana's schemas; needs npm.
#
#   boards.sh          compile boards.ts strictly, write analyst.json, engineer.json, sdk-team.json
#   boards.sh check    the same into a temporary folder, and say what differs from the files that are here
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp "$here/boards.ts" "$scratch/"
cd "$scratch"
echo '{"name":"boards","private":true,"type":"module"}' > package.json
npm install --silent --no-audit --no-fund @grafana/grafana-foundation-sdk@0.0.21 typescript@5.9.3 @types/node@22 >&2
npx tsc --strict --target es2022 --module nodenext --moduleResolution nodenext --skipLibCheck --outDir . boards.ts
case "${1:-}" in
  "") node boards.js "$here" ;;
  check)
    mkdir made
    node boards.js "$scratch/made"
    for board in analyst engineer sdk-team; do diff -u "$here/$board.json" "made/$board.json"; done
    echo "the boards are those that boards.ts makes" ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
