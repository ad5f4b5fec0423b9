#!/usr/bin/env python3
"""The metrics engine beside Prometheus and VictoriaMetrics, on one machine and the same samples.

Usage: bench-metrics.py BINNACLE [--pods N] [--steps N] [--only NAME]

Each server takes the same remote write requests: pods x 50 series of 9 labels, a sample every 15 s.
Printed: samples a CPU second takes, memory, bytes on disk, how long it is not ready after a kill, and the CPU time of
queries. Every answer is compared with Prometheus' and what differs is printed; only that makes the exit code 1.
Debian's packages are fetched into a temporary directory and not installed. They are of 2022 and 2023.
"""

import argparse
import glob
import json
import math
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from array import array
from http.client import HTTPConnection

STEP_MS = 15_000
# Questions are asked beside the samples' times: since 3.0 Prometheus' ranges are open on the left, 2.42's are not.
BESIDE = 0.001
METRICS = 50
PER_REQUEST = 5_000
PAST_MS = 20 * 60_000
START_SECONDS = 60
TICKS = os.sysconf("SC_CLK_TCK")
# Prometheus of 2023 answers these too: the newer language is what promqltest scripts are for.
QUERIES = [
    ("sum by(ns)(rate), 5 k series, range", "sum by (namespace) (rate(bench_0_total[5m]))", True),
    ("three sum(rate), 15 k series, range", "sum(rate(bench_0_total[5m])) + sum(rate(bench_1_total[5m])) + sum(rate(bench_2_total[5m]))", True),
    ("avg by(pod)(rate[2m]), instant", "avg by (pod) (rate(bench_1_total[2m]))", False),
    ("one deployment's sum(rate)", 'sum(rate(bench_0_total{pod=~"web-1-.*"}[1m]))', False),
    ("topk(10), range", "topk(10, bench_36)", True),
    ("quantile by ns, range", "quantile by (namespace) (0.9, bench_35)", True),
    ("count of everything, instant", 'count({__name__=~"bench_.+"})', False),
    ("vector matching, range", "bench_20 / on (pod) bench_21", True),
    ("over_time, range", "max_over_time(bench_35[5m]) - min_over_time(bench_35[5m])", True),
    ("subquery, instant", "max_over_time(sum(rate(bench_0_total[1m] offset 1s))[10m:30s])", False),
    ("deriv, range", "deriv(bench_36[5m])", True),
    ("resets and changes, range", "resets(bench_0_total[10m]) + changes(bench_20[10m])", True),
    ("label_replace, instant", 'label_replace(bench_20, "n", "$1", "pod", "web-(.*)-.*")', False),
    ("offset and @, range", "bench_20 offset 5m - bench_20 @ end()", True),
    ("count_values, range", 'count_values("v", bench_21)', True),
    ("and/unless, range", "bench_20 > 50 unless bench_21 > 3", True),
    ("absent, instant", 'absent(bench_20{pod="none"})', False),
    ("stddev, range", "stddev by (node) (bench_35)", True),
]


def checks():
    """Queries whose answers are only compared: each function, aggregation and operator over each kind of series."""
    kinds = ["bench_0_total", "bench_20", "bench_30", "bench_36", "bench_45"]
    ranged = (
        "rate increase delta idelta irate deriv resets changes avg_over_time min_over_time max_over_time sum_over_time "
        "count_over_time last_over_time present_over_time stddev_over_time stdvar_over_time absent_over_time"
    ).split()
    plain = (
        "abs ceil floor exp ln log2 log10 sqrt sgn round sin cos tan atan sinh tanh deg rad timestamp sort minute hour "
        "day_of_week day_of_month days_in_month month year absent scalar"
    ).split()
    totals = "sum avg min max count stddev stdvar group".split()
    for kind in kinds:
        one = f'{kind}{{namespace="team-3"}}'
        for f in ranged:
            yield f"{f}({one}[3m])"
            yield f"{f}({one}[97s] offset 41s)"
            yield f"sum by (node) ({f}({one}[4m] @ end()))"
        for f in plain:
            yield f"{f}({one})"
        for f in totals:
            yield f"{f} by (node) ({one})"
            yield f"{f} without (pod, instance, service) ({one} offset 2m)"
        yield f"quantile_over_time(0.37, {one}[5m])"
        yield f"predict_linear({one}[5m], 600)"
        yield f"clamp({one}, 3, 40) - clamp_min({one}, 5) * clamp_max({one}, 7)"
        yield f"quantile by (node) (0.7, {one})"
        yield f"max_over_time((rate({one}[2m] offset 1s))[5m:20s])"
        yield f"sum_over_time({one}[2m:13s] offset 7s)"
        yield f"{one} * on (pod) group_left (node) max by (pod, node) (bench_21)"
        for op in "+ - * / % ^ == != > < >= <= and or unless".split():
            yield f"{one} {op} on (pod) bench_37{{namespace=~\"team-[1-3]\"}}"
        for op in "+ - * / % ^".split():
            yield f"{one} {op} 2.5"
            yield f"1.5 {op} -{one}"
        for op in "== != > < >= <=".split():
            yield f"{one} {op} bool 4"
            yield f"3 {op} {one}"
    yield "vector(time()) + scalar(bench_20{instance=\"10.42.0.3:9090\"})"
    yield "label_join(bench_20, \"j\", \"/\", \"namespace\", \"pod\")"
    yield "histogram_quantile(0.9, label_replace(bench_0_total, \"le\", \"$1\", \"pod\", \"web-([0-9]+)-.*\"))"
    yield "{__name__=~\"bench_2[0-3]\", node!~\"node-[0-4].*\", namespace=\"team-7\"}"
    yield "-bench_20{container!=\"\", none=\"\", pod=~\".*-.*\"} unless bench_21 > 2 or bench_22"


def uvarint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, body):
    return uvarint(number << 3 | 2) + uvarint(len(body)) + body


def series(pod):
    """The 50 series of a pod: (labels as the message's bytes, kind)."""
    place = {
        "container": "web", "instance": f"10.42.{pod >> 8}.{pod & 255}:9090", "job": "kubernetes-pods",
        "metrics_path": "/metrics", "namespace": f"team-{pod % 20}", "node": f"node-{pod % 50}",
        "pod": f"web-{pod % 100}-{pod * 2654435761 & 0xFFFFF:05x}", "service": f"web-{pod % 100}",
    }
    for m in range(METRICS):
        kind = "counter" if m < 20 else "gauge" if m < 30 else "constant" if m < 35 else "float" if m < 40 else "slow"
        labels = {"__name__": f"bench_{m}_total" if kind == "counter" else f"bench_{m}", **place}
        yield b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(labels.items())), kind


def literal_snappy(data):
    """Snappy's block format, all literals: unpacking costs every server the same, next to nothing."""
    out = [uvarint(len(data))]
    for at in range(0, len(data), 65536):
        piece = data[at:at + 65536]
        out += [b"\xf4", struct.pack("<H", len(piece) - 1), piece]
    return b"".join(out)


class Load:
    def __init__(self, pods, steps):
        self.rng = random.Random(7)
        heads = [s for pod in range(pods) for s in series(pod)]
        # A sample is 1 + 8 + 1 + 6 bytes: times of our century in milliseconds take six.
        self.heads = [b"\x0a" + uvarint(len(h) + 18) + h + b"\x12\x10\x09" for h, _ in heads]
        self.kinds = [k for _, k in heads]
        self.steps = steps
        self.values = array("d", (self.rng.randrange(100) for _ in heads))
        self.samples = len(heads) * steps

    def place(self, now):
        """Late samples are taken for half an hour, early ones for an hour: what is longer reaches into the future."""
        span = (self.steps - 1) * STEP_MS
        self.start = int(now * 1000) // STEP_MS * STEP_MS - min(span, PAST_MS)
        self.end = self.start + span

    def advance(self):
        rng, v = self.rng.random, self.values
        for i, kind in enumerate(self.kinds):
            if kind == "counter":
                # A restart now and then.
                v[i] = v[i] + int(rng() * 200) if rng() > 0.001 else 0.0
            elif kind == "gauge":
                v[i] = int(rng() * 100) if i % METRICS == 20 else int(rng() * 5)
            elif kind == "float":
                v[i] = v[i] + rng() - 0.5
            elif kind == "slow" and rng() < 0.02:
                v[i] += 1

    def requests(self):
        for step in range(self.steps):
            if step:
                self.advance()
            tail = b"\x10" + uvarint(self.start + step * STEP_MS)
            pack = struct.Struct("<d").pack
            for at in range(0, len(self.heads), PER_REQUEST):
                parts = zip(self.heads[at:at + PER_REQUEST], self.values[at:at + PER_REQUEST])
                yield literal_snappy(b"".join(h + pack(v) + tail for h, v in parts))


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
                return time.monotonic() - began
            except (OSError, urllib.error.URLError):
                time.sleep(0.02)
        sys.exit(f"{self.binary} is not ready after {START_SECONDS} s: see {self.dir}.log")

    def stop(self, how):
        self.process.send_signal(how)
        self.process.wait(60)

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

    def load(self, load):
        link = HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", **self.headers}
        headers["X-Prometheus-Remote-Write-Version"] = "0.1.0"
        for body in load.requests():
            while True:
                link.request("POST", self.write, body, headers)
                answer = link.getresponse()
                text = answer.read()
                if answer.status // 100 == 2:
                    break
                if answer.status not in (429, 503):
                    sys.exit(f"{self.binary}: {answer.status} {text[:300]}")
                time.sleep(0.1)

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
            ("chunks, bytes a sample", size(root + "/chunks/*") / samples),
            ("index, bytes a sample", size(root + "/index") / samples),
            ("WAL, bytes a sample", wal / samples),
        ]


class Victoria(Server):
    name = "VictoriaMetrics"

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
            ("parts, bytes a sample", size(f"{self.dir}/data/**") / samples),
            ("index, bytes a sample", size(f"{self.dir}/indexdb/**") / samples),
        ]


class Binnacle(Server):
    name = "binnacle"

    def command(self):
        ports = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        return [
            self.binary, "server", "--data-dir", self.dir, "--http-addr", f"127.0.0.1:{self.port}", "--api-addr", ports[0],
            "--otlp-grpc-addr", ports[1], "--otlp-http-addr", ports[2],
        ]

    def ask(self, path, params, method="GET"):
        if not self.headers:
            found = subprocess.run([self.binary, "token", "create", "--data-dir", self.dir], capture_output=True, text=True)
            if found.returncode:
                raise OSError("no token yet")
            self.headers = {"Authorization": f"Bearer {found.stdout.strip()}"}
        return super().ask(path, params, method)

    def disk(self, samples):
        held = written = 0
        for path in glob.glob(f"{self.dir}/metrics/*.blk"):
            with open(path, "rb") as f:
                # The footer of tsdb/FORMAT.md.
                f.seek(-48, os.SEEK_END)
                footer = f.read()
                at, length = struct.unpack_from("<QI", footer, 20)
                f.seek(at)
                held += json.loads(f.read(length))["samples"]
                written += os.path.getsize(path)
        return [
            ("blocks with index, bytes a sample", written / held if held else math.nan),
            ("samples in blocks by now", held),
            ("WAL, MB", size(f"{self.dir}/metrics/wal/**") / 1e6),
        ]


def line(who, what, value):
    shown = f"{value:,.3f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"
    print(f"{who:<16} {what:<44} {shown:>16}", flush=True)


def points(answer):
    """{labels: [(time, value)]} of an answer, whatever its type."""
    kind, result = answer["resultType"], answer["result"]
    if kind == "scalar":
        return {(): [result]}
    return {tuple(sorted(s["metric"].items())): s.get("values") or [s["value"]] for s in result}


def near(a, b):
    a, b = float(a), float(b)
    return a == b or math.isnan(a) and math.isnan(b) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def difference(ours, theirs):
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        return f"{len(odd)} of {len(theirs)} series on one side only, such as {odd[0]}"
    for labels, expected in theirs.items():
        got = ours[labels]
        if [t for t, _ in got] != [t for t, _ in expected]:
            return f"{labels}: times differ, {len(got)} and {len(expected)} points"
        for (t, a), (_, b) in zip(got, expected):
            if not near(a, b):
                return f"{labels} at {t}: {a}, not {b}"
    return None


def run(server, load, expected):
    line(server.name, "start, s", server.start())
    server.settle()
    idle = server.rss()
    line(server.name, "memory when empty, MB", idle / 1e6)
    before, began = server.cpu(), time.monotonic()
    server.load(load)
    wall = time.monotonic() - began
    busy = server.cpu() - before
    server.settle()
    settled = server.cpu() - before
    line(server.name, "samples a CPU second takes", load.samples / busy)
    line(server.name, "the same, with the work behind it", load.samples / settled)
    line(server.name, "samples a second, this client's pace", load.samples / wall)
    line(server.name, "memory, MB", server.rss() / 1e6)
    line(server.name, "memory over the empty one's, bytes a series", (server.rss() - idle) / len(load.heads))
    failures = 0
    for what, query, ranged in QUERIES:
        end = load.end / 1000 + BESIDE
        params = {"query": query, "time": end}
        if ranged:
            params = {"query": query, "start": max(load.start / 1000 + BESIDE, end - 600), "end": end, "step": 15}
        path = "/query_range" if ranged else "/query"
        answer = points(server.ask(path, params))
        before, rounds = server.cpu(), 5
        for _ in range(rounds):
            server.ask(path, params)
        line(server.name, f"{what}, CPU ms", (server.cpu() - before) * 1000 / rounds)
        if expected.setdefault(what, answer) is not answer and server.name == "binnacle":
            wrong = difference(answer, expected[what])
            if wrong:
                failures += 1
                print(f"{server.name:<16} {query}\n{'':<16}   {wrong}")
    expected.setdefault("checks", {})
    queries = list(checks())
    for query in queries if server.name != "VictoriaMetrics" else []:
        end = load.end / 1000 + BESIDE
        params = {"query": query, "start": max(load.start / 1000, end - 600), "end": end, "step": 47}
        try:
            answer = points(server.ask("/query_range", params))
        except urllib.error.HTTPError as e:
            answer = f"{e.code} {json.load(e).get('errorType')}"
        if server.name == "Prometheus":
            expected["checks"][query] = answer
        elif (theirs := expected["checks"].get(query)) is not None:
            both = isinstance(answer, dict) and isinstance(theirs, dict)
            wrong = difference(answer, theirs) if both else None if answer == theirs else f"{answer}, not {theirs}"
            if wrong:
                failures += 1
                print(f"{server.name:<16} {query}\n{'':<16}   {wrong}")
    if server.name == "binnacle" and expected["checks"]:
        line(server.name, "queries compared with Prometheus", len(queries) + len(QUERIES))
    for what, value in server.disk(load.samples):
        line(server.name, what, value)
    server.stop(signal.SIGKILL)
    line(server.name, "ready after a kill, s", server.start())
    line(server.name, "of which CPU, s", server.cpu())
    held = points(server.ask("/query", {"query": 'count({__name__=~"bench_.+"})', "time": load.end / 1000 + BESIDE}))
    if held != expected[QUERIES[6][0]]:
        failures += 1
        print(f"{server.name:<16} {held} series after the kill, not {expected[QUERIES[6][0]]}")
    server.stop(signal.SIGTERM)
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binnacle")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--only", choices=["prometheus", "victoria", "binnacle"], action="append")
    args = parser.parse_args()
    wanted = args.only or ["prometheus", "victoria", "binnacle"]
    failures, expected = 0, {}
    root = tempfile.mkdtemp(prefix="bench-metrics-")
    try:
        packages = [p for p, n in (("prometheus", "prometheus"), ("victoria-metrics", "victoria")) if n in wanted]
        for package in packages:
            subprocess.run(["apt-get", "download", "-q", package], cwd=root, check=True, capture_output=True)
        for deb in glob.glob(root + "/*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
        load_start = time.time()
        for kind, key, binary in (
            (Prometheus, "prometheus", root + "/usr/bin/prometheus"),
            (Victoria, "victoria", root + "/usr/bin/victoria-metrics"),
            (Binnacle, "binnacle", os.path.abspath(args.binnacle)),
        ):
            if key in wanted:
                load = Load(args.pods, args.steps)
                load.place(load_start)
                server = kind(binary, f"{root}/{key}")
                try:
                    failures += run(server, load, expected)
                finally:
                    if server.process.poll() is None:
                        server.process.kill()
                        server.process.wait()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if failures:
        sys.exit(f"{failures} answers differ from Prometheus'")


if __name__ == "__main__":
    main()
