"""Binnacle as a process, and ClickHouse as a library in a process of its own, measured from outside alike."""

import base64
import glob
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
from http.client import HTTPConnection

from bench_metrics.servers import Binnacle as Metrics


class Binnacle(Metrics):
    name, write, query = "binnacle", "/loki/api/v1/push", "/api/v1"

    def connect(self):
        self.link = HTTPConnection("127.0.0.1", self.port, timeout=600)
        self.write_headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", **self.headers}
        with open(self.dir + "/addresses.json") as f:
            found = json.load(f)
        self.otlp = HTTPConnection(found["otlp_http"], timeout=600) if "otlp_http" in found else None

    def get(self, path, params):
        self.link.request("GET", path + "?" + urllib.parse.urlencode(params), headers=self.headers)
        answer = self.link.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {text[:300]}")
        return json.loads(text)

    def sql(self, statement):
        """How many rows a statement gives, as CSV."""
        self.link.request("POST", "/sql?format=csv", statement, headers=self.headers)
        answer = self.link.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{statement}: {answer.status} {text[:300]}")
        return text.count(b"\n") - 1

    def export(self, path, body):
        while True:
            self.otlp.request("POST", path, body, {"Content-Type": "application/x-protobuf", **self.headers})
            answer = self.otlp.getresponse()
            text = answer.read()
            if answer.status == 200:
                return
            if answer.status not in (429, 503):
                sys.exit(f"{path}: {answer.status} {text[:300]}")
            time.sleep(0.1)

    def partitions(self, kind="logs"):
        """Records, bytes of files, of columns and of what finds them, from the facts in each partition (log-index/FORMAT.md)."""
        records = files = data = index = 0
        for path in glob.glob(f"{self.dir}/{kind}/*.part"):
            try:
                with open(path, "rb") as f:
                    f.seek(-32, os.SEEK_END)
                    offset, length = struct.unpack("<QI", f.read(12))
                    f.seek(offset)
                    facts = json.loads(f.read(length))
            except FileNotFoundError:
                return self.partitions(kind)
            records += facts["records"]
            files += os.path.getsize(path)
            data += facts["data_bytes"]
            index += facts["index_bytes"]
        return records, files, data, index

    def peak(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))

    def tail(self, query):
        return Tail(self.port, query, self.headers)


class Tail:
    """Loki's tail over a WebSocket (RFC 6455): frames from the server are short enough to come whole."""

    def __init__(self, port, query, headers):
        self.link = socket.create_connection(("127.0.0.1", port), 30)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET /loki/api/v1/tail?{urllib.parse.urlencode({'query': query})} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket",
                 "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.link.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.left = b""
        while b"\r\n\r\n" not in self.left:
            self.left += self.link.recv(4096)
        head, self.left = self.left.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            sys.exit(f"tail: {head[:200]}")

    def read(self, size):
        while len(self.left) < size:
            more = self.link.recv(65536)
            if not more:
                sys.exit("the tail ended")
            self.left += more
        out, self.left = self.left[:size], self.left[size:]
        return out

    def wait_for(self, text):
        while True:
            head = self.read(2)
            size = head[1] & 127
            if size == 126:
                size = struct.unpack(">H", self.read(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.read(8))[0]
            if text in self.read(size):
                return


CLICKHOUSE = """
import json, os, resource, sys
from chdb import session
s = session.Session(sys.argv[1])
for line in sys.stdin:
    q = json.loads(line)
    before = resource.getrusage(resource.RUSAGE_SELF)
    import time
    began = time.monotonic()
    try:
        out = str(s.query(q)).strip()
    except Exception as e:
        out = "error: " + str(e)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([out, time.monotonic() - began, cpu, after.ru_maxrss * 1024]), flush=True)
"""


class ClickHouse:
    """chdb-core of PyPI: MergeTree, ZSTD(3), with a text index or a token filter on the body."""

    INDEXES = {
        "text": "INDEX i body TYPE text(tokenizer = 'splitByNonAlpha')",
        "tokenbf": "INDEX i body TYPE tokenbf_v1(8192, 3, 0) GRANULARITY 1",
    }

    def __init__(self, index, directory):
        self.name = f"ClickHouse, {index}"
        with open(directory + ".log", "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", CLICKHOUSE, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.run("CREATE DATABASE IF NOT EXISTS d")
        self.run("CREATE TABLE d.t (ts DateTime64(9) CODEC(Delta, ZSTD(3)), stream LowCardinality(String), body String CODEC(ZSTD(3)), "
                 f"{self.INDEXES[index]}) ENGINE = MergeTree ORDER BY (stream, ts)")

    def run(self, query):
        """Answer, seconds, CPU seconds, the most memory until now."""
        self.process.stdin.write(json.dumps(query) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if answer[0].startswith("error: "):
            sys.exit(f"{self.name}: {answer[0][:500]}\n{query[:300]}")
        return answer

    def load(self, path):
        """A file of lines, spread over streams as Binnacle's are."""
        return self.run("INSERT INTO d.t SELECT fromUnixTimestamp64Nano(1700000000000000000 + rowNumberInAllBlocks() * 1000000), "
                        f"'pod-' || toString(rowNumberInAllBlocks() % 7), line FROM file('{path}', LineAsString)")

    def sizes(self):
        self.run("OPTIMIZE TABLE d.t FINAL")
        found = self.run("SELECT sum(data_compressed_bytes), sum(secondary_indices_compressed_bytes) FROM system.parts WHERE active AND table = 't' FORMAT TSV")
        return [int(n) for n in found[0].split("\t")]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)
