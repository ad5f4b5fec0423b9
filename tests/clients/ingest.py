"""What was acknowledged is there, and nothing twice that has a key: over kill -9, and over a full disk.

Usage: ingest.py BINARY DIRECTORY
Needs root for a small file system of its own.
"""

import contextlib
import errno
import glob
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import grpc
import msgpack
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

BINARY, DIRECTORY = sys.argv[1:]


class Server:
    def __init__(self, data):
        self.data = data
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{data}/addresses.json")
        doors = ("api", "http", "otlp-grpc", "otlp-http", "elasticsearch", "fluent", "syslog-tcp")
        # An address that no other test's server gets: senders still know it when this one is dead.
        flags = [f for d in doors for f in (f"--{d}-addr", "127.0.0.7:0")]
        self.log = open(os.path.join(DIRECTORY, "server.log"), "a+")
        self.process = subprocess.Popen([BINARY, "server", "--data-dir", data, *flags], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 30
        while not os.path.exists(f"{data}/addresses.json"):
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        self.addresses = json.load(open(f"{data}/addresses.json"))
        self.token = open(f"{data}/admin.token").read().strip()

    def said(self):
        self.log.seek(0)
        return self.log.read()[-4000:]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def host(self, door):
        host, port = self.addresses[door].rsplit(":", 1)
        return host, int(port)

    def bulk(self, lines, index="bulk"):
        """Gives the status; items are all stored or none."""
        body = "".join(f'{{"create":{{"_index":"{index}"}}}}\n{json.dumps({"message": line})}\n' for line in lines)
        url = f"http://{self.addresses['elasticsearch']}/_bulk"
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/x-ndjson"})
        try:
            with urllib.request.urlopen(request, timeout=20) as r:
                assert not json.load(r)["errors"]
                return 200
        except urllib.error.HTTPError as e:
            assert e.code != 507 or e.headers["Retry-After"], "a full disk says when to come again"
            return e.code

    def chunk(self, name, lines):
        """Returns once it is acknowledged."""
        entries = b"".join(msgpack.packb([time.time(), {"log": line}]) for line in lines)
        with socket.create_connection(self.host("fluent"), timeout=20) as s:
            s.sendall(msgpack.packb(["fluent", entries, {"chunk": name}]))
            answer = s.recv(100)
            if not answer:
                raise ConnectionError("closed")
            assert msgpack.unpackb(answer) == {"ack": name}

    def lines(self, query):
        out, start = [], time.time_ns() - 3600 * 10**9
        while True:
            params = {"query": query, "start": start, "end": time.time_ns() + 10**9, "limit": 5000, "direction": "forward"}
            url = f"http://{self.addresses['http']}/loki/api/v1/query_range?" + urllib.parse.urlencode(params)
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})) as r:
                got = sorted((int(v[0]), v[1]) for s in json.load(r)["data"]["result"] for v in s["values"])
            # Lines of the last time may go on beyond the limit: they are asked for again.
            if len(got) < 5000:
                return out + [line for _, line in got]
            last = got[-1][0]
            assert got[0][0] < last, "more lines at one time than a question may give"
            out += [line for t, line in got if t < last]
            start = last


def killed():
    """Senders go on over three deaths; each repeats what was not acknowledged."""
    data = os.path.join(DIRECTORY, "killed")
    server = Server(data)
    acknowledged = {"bulk": set(), "fluent": set()}
    ended = threading.Event()

    def send(kind, worker):
        n = 0
        while not ended.is_set():
            lines = [f"{kind} {worker} {n} {i}" for i in range(20)]
            try:
                if kind == "bulk":
                    if server.bulk(lines) != 200:
                        continue
                else:
                    server.chunk(f"{worker}-{n}", lines)
            except (OSError, urllib.error.URLError):
                time.sleep(0.02)
                continue
            acknowledged[kind].update(lines)
            n += 1

    workers = [threading.Thread(target=send, args=(k, w)) for k in acknowledged for w in range(3)]
    for w in workers:
        w.start()
    for _ in range(3):
        time.sleep(1)
        server.kill()
        server = Server(data)
    time.sleep(0.5)
    ended.set()
    for w in workers:
        w.join()
    server.kill()
    server = Server(data)
    for kind, query in (("bulk", '{index="bulk"}'), ("fluent", '{tag="fluent"}')):
        got = server.lines(query)
        missing = acknowledged[kind] - set(got)
        assert acknowledged[kind] and not missing, f"{kind}: {len(missing)} of {len(acknowledged[kind])} are lost"
        if kind == "fluent":
            assert len(got) == len(set(got)), f"{len(got) - len(set(got))} lines are there twice"
    server.kill()


def fill(path):
    """Takes what room there is."""
    with open(path, "wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(1 << 16))
        except OSError as e:
            assert e.errno == errno.ENOSPC, e


def full_disk():
    """Refused while the disk is full, in each protocol's words; taken again once there is room, without a restart."""
    data = os.path.join(DIRECTORY, "full")
    os.mkdir(data)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", data], check=True)
    try:
        server = Server(data)
        random.seed(7)
        # A flush may make room at any moment: the disk is filled up until there is none.
        for attempt in range(200):
            fill(f"{data}/ballast{attempt}")
            status = server.bulk([random.randbytes(250_000).hex()[:250_000]], "filler")
            if status != 200:
                break
        assert status == 507, status
        request = ExportLogsServiceRequest()
        record = request.resource_logs.add().scope_logs.add().log_records.add()
        record.body.string_value = random.randbytes(1_000_000).hex()
        stub = LogsServiceStub(grpc.insecure_channel(server.addresses["otlp_grpc"]))
        for attempt in range(50):
            fill(f"{data}/more{attempt}")
            try:
                stub.Export(request, timeout=20)
            except grpc.RpcError as e:
                details = dict(e.trailing_metadata()).get("grpc-status-details-bin", b"")
                assert e.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and b"RetryInfo" in details, e
                break
        else:
            raise AssertionError("taken by a full disk")
        # A chunk waits for its acknowledgement until there is room.
        waiting = threading.Thread(target=server.chunk, args=("patient", [random.randbytes(200_000).hex()]))
        waiting.start()
        for name in glob.glob(f"{data}/more*") + glob.glob(f"{data}/ballast*"):
            os.remove(name)
        waiting.join(20)
        assert not waiting.is_alive(), "no acknowledgement after there was room"
        assert server.bulk(["after"], "filler") == 200
        stub.Export(request, timeout=20)
        assert server.lines('{index="filler"} |= "after"') == ["after"]
        assert server.process.poll() is None
        server.kill()
    finally:
        subprocess.run(["umount", "-l", data], check=True)


for step in (killed, full_disk):
    try:
        step()
    except Exception as e:
        raise RuntimeError(step.__name__) from e
print("ok")
