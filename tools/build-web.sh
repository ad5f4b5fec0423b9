#!/usr/bin/env bash
# Builds dashboards/ui into dashboards/ui/dist, if something changed.
set -euo pipefail
cd "$(dirname "$0")/../dashboards/ui"
stamp=$(find . -path ./node_modules -prune -o -path ./dist -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
[ -f dist/.stamp ] && [ "$(cat dist/.stamp)" = "$stamp" ] && exit 0
echo "== building the web UI" >&2
npm ci --no-audit --no-fund --loglevel=error >&2
npm run --silent build >&2
echo "$stamp" > dist/.stamp
