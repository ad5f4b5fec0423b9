#!/usr/bin/env python3
"""Suites that others wrote, against a cluster of Binnacle.

Usage: run.py BINNACLE KUBECTL PACKAGES [SUITE…] [--keep FILE]

PACKAGES is a directory with what requirements.txt names. A registry on loopback, the mirror of all others, holds images of
busybox under the names the suites use. Prints each suite's counts and every test that failed; the exit code is not 0 if one
failed that known-failures.txt does not list, or one passed that it lists (without "sometimes" behind it).
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request

import openapi_requests
import structured_merge_diff

HERE = pathlib.Path(__file__).resolve().parent
REGISTRY = """version: 0.1
storage: {{filesystem: {{rootdirectory: {dir}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""
# What the suites ask for; one file system serves them all.
IMAGES = ["library/nginx:latest", "library/ubuntu:latest", "library/busybox:latest", "library/busybox:stable", "library/alpine:latest", "google_containers/pause:latest"]
LIMIT = 1500


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, ask, seconds=60):
    last = None
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if ask():
                return
        except OSError as e:
            last = e
        time.sleep(0.05)
    sys.exit(f"waited {seconds} s for {what}: {last}")


class Registry:
    """Debian's docker-registry with the images."""

    def __init__(self, root):
        self.port = free_port()
        config = root / "registry.yml"
        config.write_text(REGISTRY.format(dir=root / "registry", port=self.port))
        log = open(root / "registry.log", "wb")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
        wait_for("the registry", lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/").status == 200)
        archive = image(root)
        for name in IMAGES:
            subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}",
                            f"docker://127.0.0.1:{self.port}/{name}"], check=True)


def image(root):
    """A docker archive of busybox that serves a page on port 80 unless told otherwise."""
    top = root / "image"
    for d in ("bin", "etc", "tmp", "usr/share/nginx/html"):
        (top / d).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", top / "bin/busybox")
    for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (top / "bin" / applet).symlink_to("busybox")
    (top / "usr/share/nginx/html/index.html").write_text("<title>Welcome to nginx!</title>\n")
    (top / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    layer, archive = root / "layer.tar", root / "image.tar"
    with tarfile.open(layer, "w") as t:
        t.add(top, arcname="/")
    digest = subprocess.run(["sha256sum", layer], capture_output=True, text=True, check=True).stdout.split()[0]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
              "config": {"Cmd": ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"], "Env": ["PATH=/bin"]}}
    (root / "config.json").write_text(json.dumps(config))
    (root / "manifest.json").write_text(json.dumps([{"Config": "config.json", "RepoTags": ["compat:1"], "Layers": ["layer.tar"]}]))
    with tarfile.open(archive, "w") as t:
        for name in ("config.json", "manifest.json", "layer.tar"):
            t.add(root / name, arcname=name)
    return archive


class Cluster:
    def __init__(self, binary, root, registry):
        self.binary, self.dir = binary, root / "data"
        self.flags = ["--data-dir", self.dir, "--api-addr", f"127.0.0.1:{free_port()}", "--http-addr", f"127.0.0.1:{free_port()}",
                      "--otlp-grpc-addr", "127.0.0.1:0", "--otlp-http-addr", "127.0.0.1:0",
                      # A test of kube asks the node itself, at the port that all nodes have.
                      "--kubelet-addr", "127.0.0.1:10250",
                      "--containerd-socket", root / "containerd.sock", "--pod-cidr", "10.174.0.0/16", "--service-cidr", "10.175.0.0/16",
                      "--bridge", "bncompat", "--cgroup-root", "binnacle-compat", "--node-name", "node-compat",
                      "--registry-mirrors", f"*=127.0.0.1:{registry.port}"]
        self.flags = [str(f) for f in self.flags]
        log = open(root / "binnacle.log", "wb")
        self.process = subprocess.Popen([binary, "up", *self.flags], stdout=log, stderr=log)
        self.kubeconfig = self.dir / "admin.kubeconfig"
        self.log = root / "binnacle.log"
        wait_for("the node", lambda: self.process.poll() is None and b"is Ready" in self.log.read_bytes())

    def populate(self, kubectl):
        """What other clusters have in kube-system, and suites look for there."""
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        for name in ("coredns", "etcd"):
            subprocess.run([kubectl, "run", name, "-n", "kube-system", "--image=busybox:latest", f"--labels=component={name}", "--port=80"],
                           check=True, env=env, stdout=subprocess.DEVNULL)
        subprocess.run([kubectl, "wait", "pod", "--all", "-n", "kube-system", "--for=condition=Ready", "--timeout=60s"],
                       check=True, env=env, stdout=subprocess.DEVNULL)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        subprocess.run([self.binary, "down", "--purge", *self.flags], check=True, stdout=subprocess.DEVNULL)


def kr8s(env, packages, root):
    """The tests of kr8s' source distribution. Gives {name: passed, failed or skipped} and the log."""
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:",
                    "-d", root, "kr8s==0.20.15"], check=True)
    with tarfile.open(root / "kr8s-0.20.15.tar.gz") as t:
        t.extractall(root, filter="data")
    source = root / "kr8s-0.20.15"
    report = root / "kr8s.log"
    env = {**env, "PYTHONPATH": f"{HERE}:{packages}"}
    with open(report, "wb") as log:
        subprocess.run([sys.executable, "-m", "pytest", "-p", "pytest_kind.plugin", "-p", "no:cacheprovider", "-o", "addopts=", "--timeout=120", "--tb=short", "-v", "-rA", "kr8s"],
                       cwd=source, env=env, stdout=log, stderr=log, timeout=LIMIT)
    found = {}
    for line in report.read_text(errors="replace").splitlines():
        m = re.match(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (kr8s/tests/\S+?::\S.*?)(?: - .*)?$", line)
        if m:
            kind = {"PASSED": "passed", "XFAIL": "passed", "SKIPPED": "skipped"}.get(m[1], "failed")
            # A test whose clean-up fails is there twice.
            if found.get(m[2]) != "failed":
                found[m[2]] = kind
    return found, report


def kube(env, packages, root):
    """The cluster tests of kube, kube-client and kube-runtime, from the sources that the workspace's own dependency brings."""
    home = pathlib.Path(env.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    lock = (HERE.parent.parent / "Cargo.lock").read_text()
    version = re.search(r'name = "kube"\nversion = "([^"]+)"', lock)[1]
    # Beside the packages, always at one place: what is built is found again.
    work = pathlib.Path(packages).parent / "kube"
    source = work / "source"
    shutil.rmtree(source, ignore_errors=True)
    for crate in KUBE:
        published = next(home.glob(f"registry/src/*/{crate}-{version}"))
        # With the times of the files: cargo judges by them.
        shutil.copytree(published, source / crate, ignore=shutil.ignore_patterns("Cargo.lock", "Cargo.toml.orig"))
        manifest = source / crate / "Cargo.toml"
        if crate != "kube":
            # Publishing left out the crate above, which the tests use.
            manifest.write_text(manifest.read_text() + KUBE_ABOVE.format(version=version))
    (source / "Cargo.toml").write_text("[workspace]\nresolver = \"2\"\nmembers = [{}]\n[patch.crates-io]\n{}\n".format(
        ", ".join(f'"{c}"' for c in KUBE), "\n".join(f'{c} = {{ path = "{c}" }}' for c in KUBE)))
    (source / "Cargo.lock").write_text(lock)
    report = root / "kube.log"
    env = {**env, "CARGO_TARGET_DIR": str(work / "target"), "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_TEST_DEBUG": "0"}
    features = ",".join(["kube-client/ws", "kube-client/kubelet-debug", "kube-client/jsonpatch", "kube-client/rustls-tls", "kube/kubelet-debug"])
    packages = [arg for crate in KUBE for arg in ("-p", crate)]
    with open(report, "wb") as log:
        subprocess.run(["cargo", "test", "--no-fail-fast", "--lib", *packages, "--features", features, "--", "--ignored"],
                       cwd=source, env=env, stdout=log, stderr=log, timeout=LIMIT)
    found, crate = {}, None
    for line in report.read_text(errors="replace").splitlines():
        at = re.match(r"^ +Running unittests src/lib.rs \(.*/(\w+)-[0-9a-f]+\)", line)
        crate = at[1] if at else crate
        m = re.match(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED)", line)
        if m:
            found[f"{crate}::{m[1]}"] = "passed" if m[2] == "ok" else "failed"
    return found, report


KUBE = ["kube", "kube-client", "kube-runtime"]
KUBE_ABOVE = """
[dev-dependencies.kube]
version = "={version}"
features = ["derive", "client", "ws", "runtime", "rustls-tls", "ring"]
default-features = false
"""
SUITES = {"kr8s": kr8s, "kube": kube, "structured-merge-diff": structured_merge_diff.run, "openapi": openapi_requests.run}


def main():
    args = sys.argv[1:]
    keep = None
    if "--keep" in args:
        at = args.index("--keep")
        keep = pathlib.Path(args[at + 1])
        del args[at:at + 2]
    binary, kubectl, packages, *wanted = args
    known = {line.split("#")[0].strip() for line in (HERE / "known-failures.txt").read_text().splitlines()} - {""}
    root = pathlib.Path(tempfile.mkdtemp(prefix="binnacle-compat-"))
    tools = root / "bin"
    tools.mkdir()
    (tools / "kubectl").symlink_to(kubectl)
    registry = Registry(root)
    surprises = []
    try:
        cluster = Cluster(binary, root, registry)
        try:
            cluster.populate(kubectl)
            env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "BINNACLE": binary, "BINNACLE_KUBECTL": kubectl, "PATH": f"{tools}:{os.environ['PATH']}"}
            for name in wanted or SUITES:
                found, report = SUITES[name](env, packages, root)
                count = {k: sum(v == k for v in found.values()) for k in ("passed", "failed", "skipped")}
                print(f"{name}: {len(found)} tests, {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped", flush=True)
                if not found:
                    surprises.append(f"{name}: no test ran")
                    print(report.read_text(errors="replace")[-4000:])
                for test, how in sorted(found.items()):
                    listed = f"{name} {test}" in known
                    if f"{name} {test} sometimes" in known:
                        continue
                    if how == "failed":
                        print(f"  failed{' (known)' if listed else ''}: {test}")
                    if (how == "failed") != listed and how != "skipped":
                        surprises.append(f"{name} {test}: {how}, {'' if listed else 'not '}listed in known-failures.txt")
                if keep:
                    keep.write_bytes(report.read_bytes())
        finally:
            if keep:
                keep.with_suffix(".binnacle").write_bytes(cluster.log.read_bytes())
            cluster.end()
    finally:
        registry.process.terminate()
        registry.process.wait(30)
        shutil.rmtree(root, ignore_errors=True)
    if surprises:
        sys.exit("not as known:\n  " + "\n  ".join(surprises))


if __name__ == "__main__":
    main()
