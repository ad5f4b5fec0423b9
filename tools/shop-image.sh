#!/usr/bin/env bash
# Builds the shop's image as an OCI archive from its static binary and Debian's busybox-static.
# usage: tools/shop-image.sh <shop binary> <archive to write>
set -euo pipefail
binary=$1 archive=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp"
cp "$binary" "$work/root/shop"
cp /bin/busybox "$work/root/bin/busybox"
for applet in sh ls cat echo sleep wget nslookup ps id env mount ip; do
  ln -s busybox "$work/root/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > "$work/root/etc/passwd"
chmod 1777 "$work/root/tmp"

blobs=$work/oci/blobs/sha256
mkdir -p "$blobs"
# Fixed times and owners: the same inputs give the same digest.
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/root" -cf "$work/layer.tar" .
add() { # file -> "digest size", stored as a blob
  local digest size
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  size=$(stat -c %s "$1")
  cp "$1" "$blobs/$digest"
  echo "$digest $size"
}
diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
gzip -n -1 -c "$work/layer.tar" > "$work/layer.tar.gz"
read -r layer layer_size < <(add "$work/layer.tar.gz")
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/shop"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"tools/shop-image.sh"}]}' \
  "$arch" "$diff_id" > "$work/config.json"
read -r config config_size < <(add "$work/config.json")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' \
  "$config" "$config_size" "$layer" "$layer_size" > "$work/manifest.json"
read -r manifest manifest_size < <(add "$work/manifest.json")
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"binnacle.io/shop:latest","org.opencontainers.image.ref.name":"latest"}}]}' \
  "$manifest" "$manifest_size" > "$work/oci/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' > "$work/oci/oci-layout"
mkdir -p "$(dirname "$archive")"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/oci" -cf "$archive.new" .
mv "$archive.new" "$archive"
