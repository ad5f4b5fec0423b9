#!/usr/bin/env bash
# Installs what the browser test needs beside Chromium: playwright-core and axe-core, as its lock file says.
set -euo pipefail
cd "$(dirname "$0")/../tests/browser"
[ node_modules/.package-lock.json -nt package-lock.json ] && exit 0
npm ci --no-audit --no-fund --loglevel=error >&2
