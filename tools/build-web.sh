#!/usr/bin/env bash
# Builds dashboards/ui into dashboards/ui/dist, if Node is there and something changed.
# Without Node the binary shows a page that says the UI was not built; every API works.
set -euo pipefail
cd "$(dirname "$0")/../dashboards/ui" 2>/dev/null || { echo "== no web UI in this checkout" >&2; exit 0; }
[ -f package.json ] || { echo "== no web UI in this checkout" >&2; exit 0; }
if ! command -v npm >/dev/null; then
  echo "== npm is not installed: the web UI is not built (apt-get install npm)" >&2
  exit 0
fi
stamp=$(find . -path ./node_modules -prune -o -path ./dist -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
[ -f dist/.stamp ] && [ "$(cat dist/.stamp)" = "$stamp" ] && exit 0
echo "== building the web UI" >&2
npm ci --no-audit --no-fund --loglevel=error >&2
npm run --silent build >&2
echo "$stamp" > dist/.stamp
