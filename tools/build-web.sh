#!/usr/bin/env bash
# Builds dashboards/ui into dashboards/ui/dist, if something changed. Without Node.js 20 the binary shows a page that
# says the UI was not built; every API works.
set -euo pipefail
cd "$(dirname "$0")/../dashboards/ui"
major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p')
if [ "${major:-0}" -lt 20 ] || ! command -v npm >/dev/null; then
  echo "== the web UI is not built: Node.js 20 or newer with npm is needed (found: $(node --version 2>/dev/null || echo none))" >&2
  exit 0
fi
stamp=$(find . -path ./node_modules -prune -o -path ./dist -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
[ -f dist/.stamp ] && [ "$(cat dist/.stamp)" = "$stamp" ] && exit 0
echo "== building the web UI" >&2
npm ci --no-audit --no-fund --loglevel=error >&2
npm run --silent build >&2
echo "$stamp" > dist/.stamp
