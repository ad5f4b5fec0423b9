"""The servers that are measured: how each is started, asked and looked at."""

import glob
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPConnection

START_SECONDS = 60
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def size(*patterns):
    total = 0
    for pattern in patterns:
        for path in glob.glob(pattern, recursive=True):
            if os.path.isfile(path):
                total += os.path.getsize(path)
    return total


class Server:
    write, query = "/api/v1/write", "/api/v1"
    headers = {}

    def __init__(self, binary, directory):
        self.binary, self.dir, self.port = binary, directory, free_port()
        os.makedirs(directory)

    def start(self):
        with open(self.dir + ".log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            if self.process.poll() is not None:
                sys.exit(f"{self.binary} ended: see {self.dir}.log")
            try:
                self.ask("/query", {"query": "1"})
                self.connect()
                return time.monotonic() - began
            except (OSError, urllib.error.URLError):
                time.sleep(0.02)
        sys.exit(f"{self.binary} is not ready after {START_SECONDS} s: see {self.dir}.log")

    def stop(self, how):
        self.process.send_signal(how)
        self.process.wait(60)

    version_flag = "--version"

    def version(self):
        found = subprocess.run([self.binary, self.version_flag], capture_output=True, text=True)
        text = (found.stdout + found.stderr).strip()
        return text.splitlines()[0] if text else "?"

    def ask(self, path, params, method="GET"):
        url = f"http://127.0.0.1:{self.port}{self.query}{path}"
        body = urllib.parse.urlencode(params).encode()
        request = urllib.request.Request(
            url + "?" + body.decode() if method == "GET" else url, None if method == "GET" else body, self.headers, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["data"]

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            stat = f.read().rsplit(") ", 1)[1].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))

    def connect(self):
        self.link = HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.write_headers = {
            "Content-Encoding": "snappy", "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0", **self.headers,
        }

    def send(self, body):
        """Until it is acknowledged."""
        while True:
            self.link.request("POST", self.write, body, self.write_headers)
            answer = self.link.getresponse()
            text = answer.read()
            if answer.status // 100 == 2:
                return
            if answer.status not in (429, 503):
                sys.exit(f"{self.binary}: {answer.status} {text[:300]}")
            time.sleep(0.1)

    def pause(self):
        """Servers close what is idle for a minute: the next request connects anew."""
        self.link.close()

    def load(self, load):
        self.pause()
        for body in load.requests():
            self.send(body)

    def settle(self):
        """Until what is written behind the requests is: CPU nearly idle, three seconds long, of at most two minutes."""
        quiet, began = 0, time.monotonic()
        while quiet < 3 and time.monotonic() - began < 120:
            before = self.cpu()
            time.sleep(1)
            quiet = quiet + 1 if self.cpu() - before < 0.1 else 0


class Prometheus(Server):
    name = "Prometheus"

    def command(self):
        config = self.dir + ".yaml"
        with open(config, "w") as f:
            f.write("global: {}\n")
        return [
            self.binary, f"--config.file={config}", f"--storage.tsdb.path={self.dir}", "--web.enable-remote-write-receiver",
            "--web.enable-admin-api", f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
        ]

    def disk(self, samples):
        wal = size(f"{self.dir}/wal/**")
        name = self.ask("/admin/tsdb/snapshot", {}, "POST")["name"]
        root = f"{self.dir}/snapshots/{name}/*"
        return [
            ("disk", "chunks, bytes a sample", size(root + "/chunks/*") / samples),
            ("index", "index, bytes a sample", size(root + "/index") / samples),
            ("wal", "WAL, bytes a sample", wal / samples),
        ]


class Victoria(Server):
    name, version_flag = "VictoriaMetrics", "-version"

    def command(self):
        return [
            self.binary, f"-storageDataPath={self.dir}", f"-httpListenAddr=127.0.0.1:{self.port}", "-retentionPeriod=1",
            "-loggerLevel=ERROR", "-search.disableCache", "-search.latencyOffset=0s",
        ]

    def disk(self, samples):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/internal/force_merge", timeout=120):
            pass
        time.sleep(5)
        self.settle()
        return [
            ("disk", "parts, bytes a sample", size(f"{self.dir}/data/**") / samples),
            ("index", "index, bytes a sample", size(f"{self.dir}/indexdb/**") / samples),
        ]


class Binnacle(Server):
    name = "binnacle"

    def command(self):
        ports = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        return [
            self.binary, "server", "--data-dir", self.dir, "--http-addr", f"127.0.0.1:{self.port}", "--api-addr", ports[0],
            "--otlp-grpc-addr", ports[1], "--otlp-http-addr", ports[2], "--enable-admin-api",
        ]

    def ask(self, path, params, method="GET"):
        if not self.headers:
            found = subprocess.run([self.binary, "token", "create", "--data-dir", self.dir], capture_output=True, text=True)
            if found.returncode:
                raise OSError("no token yet")
            self.headers = {"Authorization": f"Bearer {found.stdout.strip()}"}
        return super().ask(path, params, method)

    def own(self, name):
        """One of the engine's own metrics, as it was at the end of the load: they are taken every 10 s."""
        found = self.ask("/query", {"query": f"max_over_time(binnacle_tsdb_{name}[1m])", "time": time.time()})["result"]
        return float(found[0]["value"][1]) if found else math.nan

    def disk(self, samples):
        time.sleep(11)
        name = self.ask("/admin/tsdb/snapshot", {}, "POST")["name"]
        held = written = 0
        for path in glob.glob(f"{self.dir}/metrics/snapshots/{name}/*.blk"):
            with open(path, "rb") as f:
                # The footer of tsdb/FORMAT.md.
                f.seek(-48, os.SEEK_END)
                footer = f.read()
                at, length = struct.unpack_from("<QI", footer, 20)
                f.seek(at)
                held += json.loads(f.read(length))["samples"]
                written += os.path.getsize(path)
        return [
            ("disk", "blocks with index, bytes a sample", written / held if held else math.nan),
            (None, "samples in blocks", held),
            ("wal", "WAL, bytes a sample", self.own("wal_written_bytes_total") / self.own("samples_appended_total")),
        ]
