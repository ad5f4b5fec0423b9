"""What node_exporter says of this machine, recorded once and sent to every server: bytes a sample on disk."""

import glob
import gzip
import os
import re
import struct
import subprocess
import time
import urllib.request

from .load import field, literal_snappy, uvarint
from .servers import free_port

LINE = re.compile(r"^([^{ ]+)(?:\{(.*)\})? ([^ ]+)$")
PAIR = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ESCAPE = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def record(binary, path, scrapes, every=1.0):
    """A scrape a second, as text, packed. A recording that is there is used again."""
    if os.path.exists(path):
        return
    port = free_port()
    process = subprocess.Popen(
        [binary, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url, began = f"http://127.0.0.1:{port}/metrics", time.monotonic()
        while True:
            try:
                urllib.request.urlopen(url).read()
                break
            except OSError:
                if time.monotonic() - began > 10:
                    raise
                time.sleep(0.1)
        with gzip.open(path + ".part", "wb", compresslevel=4) as out:
            for i in range(scrapes):
                at = time.time()
                text = urllib.request.urlopen(url).read()
                out.write(f"# scrape {int(at * 1000)}\n".encode() + text)
                if i % 60 == 0:
                    print(f"recording node_exporter: {i} of {scrapes} s", flush=True)
                time.sleep(max(0.0, every - (time.time() - at)))
        os.rename(path + ".part", path)
    finally:
        process.terminate()
        process.wait()


class Recorded:
    """The recording, its newest scrape moved to `now`; with a step its scrapes stand at even distances."""

    def __init__(self, path, now, step=None):
        with gzip.open(path, "rt") as f:
            scrapes = f.read().split("# scrape ")[1:]
        times = [int(s.split(None, 1)[0]) for s in scrapes]
        if step:
            times = [i * step for i in range(len(times))]
        shift = int(now * 1000) - times[-1]
        self.messages, names, self.samples = [], {}, 0
        for at, text in zip(times, scrapes):
            one = []
            for line in text.split("\n")[1:]:
                if line and line[0] != "#" and (m := LINE.match(line)):
                    key = (m[1], m[2])
                    if key not in names:
                        names[key] = self.head(m)
                    one.append((names[key], float(m[3])))
            self.samples += len(one)
            self.messages.append((at + shift, one))
        self.series = len(names)

    @staticmethod
    def head(m):
        labels = {"__name__": m[1], "instance": "127.0.0.1:9100", "job": "node"}
        for name, value in PAIR.findall(m[2] or ""):
            labels[name] = re.sub(r"\\.", lambda e: ESCAPE.get(e[0], e[0]), value)
        return b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(labels.items()))

    def requests(self):
        for at in range(0, len(self.messages), 10):
            series = {}
            for time_, one in self.messages[at:at + 10]:
                for head, value in one:
                    sample = b"\x09" + struct.pack("<d", value) + b"\x10" + uvarint(time_)
                    series.setdefault(head, []).append(field(2, sample))
            yield literal_snappy(b"".join(field(1, head + b"".join(s)) for head, s in series.items()))


def measure(kind, binary, directory, path, line):
    """Bytes a sample with index, as recorded and at even distances of 15 s. Gives back the figures by name."""
    out = {}
    for key, what, step in (
        ("recorded", "node_exporter as recorded, bytes a sample", None),
        ("restamped", "node_exporter every 15 s, bytes a sample", 15_000),
    ):
        server = kind(binary, f"{directory}-{key}")
        load = Recorded(path, time.time(), step)
        try:
            server.start()
            server.load(load)
            server.settle()
            figures = server.disk(load.samples)
            out[key] = sum(value for name, _, value in figures if name in ("disk", "index"))
            line(server.name, what, out[key])
        finally:
            server.process.kill()
            server.process.wait()
    return out


def find(root):
    return next(iter(glob.glob(root + "/usr/bin/prometheus-node-exporter")))
