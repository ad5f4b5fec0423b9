"""What is measured, and how it is shown."""

import math
import os
import signal
import time

from bench_metrics.load import field, uvarint

from .load import SERVICES, TRACES, Requests, Spans, padded
from .servers import Binnacle

SECOND = 10**9


def line(who, what, value, unit=""):
    shown = f"{value:,.2f}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
    print(f"{who:<20} {what:<58} {shown:>14} {unit}", flush=True)


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(part * len(values)) - 1)] if values else math.nan


def fresh(binary, directory):
    server = Binnacle(binary, directory)
    server.start()
    return server


def kept(server, requests, repetitions):
    """CPU seconds, all work behind it counted, and what lies on disk as parts of the raw bytes."""
    before = server.cpu()
    for n in range(repetitions):
        for body in requests.repetition(n):
            server.send(body)
    sent = server.cpu() - before
    server.settle()
    return sent, server.cpu() - before


def corpus(binary, directory, name, lines, ids, repetitions, questions=()):
    """Disk and ingest of one corpus, in a server of its own, and SQL asked of it: (what, statement)."""
    start = time.time_ns() - 3600 * SECOND
    requests = Requests(lines, start, ids)
    raw = requests.raw * repetitions
    server = fresh(binary, directory)
    try:
        sent, busy = kept(server, requests, repetitions)
        records, files, data, index = server.partitions()
        # What is still in the log counts neither here nor there.
        part = records / (requests.lines * repetitions)
        line(server.name, f"{name}: disk, % of raw", 100 * files / (raw * part), "%")
        line(server.name, f"{name}: columns alone", 100 * data / (raw * part), "%")
        line(server.name, f"{name}: words and filters alone", 100 * index / (raw * part), "%")
        line(server.name, f"{name}: ingest, raw MB a CPU second (Loki protobuf)", raw / 1e6 / busy)
        line(server.name, f"{name}: the same until it is acknowledged", raw / 1e6 / sent)
        line(server.name, f"{name}: most memory, MB", server.peak() / 1e6)
        for what, statement in questions:
            took, rows = [], 0
            for _ in range(3):
                began = time.monotonic()
                rows = server.sql(statement)
                took.append((time.monotonic() - began) * 1000)
            line(server.name, f"SQL, {what} ({rows:,} rows)", min(took), "ms")
    finally:
        server.stop(signal.SIGTERM)


def otlp(binary, directory, lines):
    """The same lines over OTLP/HTTP."""
    start = time.time_ns() - 3600 * SECOND
    server = fresh(binary, directory)
    try:
        bodies, raw = [], 0
        for at in range(0, len(lines), 2800):
            records = bytearray()
            for n, text in enumerate(lines[at:at + 2800], at):
                encoded = text.encode()
                raw += len(encoded) + 1
                records += field(2, b"\x09" + (start + n * 1_000_000).to_bytes(8, "little") + field(5, field(1, encoded)))
            resource = field(1, field(1, field(1, b"service.name") + field(2, field(1, b"web"))))
            bodies.append(field(1, resource + field(2, bytes(records))))
        before = server.cpu()
        for body in bodies:
            server.export("/v1/logs", body)
        server.settle()
        line(server.name, "access: ingest, raw MB a CPU second (OTLP/HTTP)", raw / 1e6 / (server.cpu() - before))
    finally:
        server.stop(signal.SIGTERM)


def one_line(server, text, compress):
    nanos = time.time_ns()
    entry = field(1, b"\x08" + padded(nanos // SECOND, 5) + b"\x10" + padded(nanos % SECOND, 5)) + field(2, text.encode())
    server.send(bytes(compress(field(1, field(1, b'{app="fresh"}') + field(2, entry)))))


def freshness(server, compress, times=200):
    """Milliseconds from sending a line to its being found, and to its coming out of a tail."""
    tail = server.tail('{app="fresh"}')
    searchable, tailed = [], []
    for n in range(times):
        text = f"fresh-{os.getpid()}-{n}-end"
        began = time.monotonic()
        one_line(server, text, compress)
        while True:
            now = time.time_ns()
            found = server.get("/loki/api/v1/query_range", {"query": '{app="fresh"} |= "%s"' % text, "start": now - 60 * SECOND, "end": now + SECOND})
            if found["data"]["result"]:
                break
        searchable.append((time.monotonic() - began) * 1000)
        tail.wait_for(text.encode())
        began = time.monotonic()
        text += "-tail"
        one_line(server, text, compress)
        tail.wait_for(text.encode())
        tailed.append((time.monotonic() - began) * 1000)
    for what, values in (("append to searchable", searchable), ("append to tail", tailed)):
        line(server.name, f"{what}, p50 ms", percentile(values, 0.5))
        line(server.name, f"{what}, p99 ms", percentile(values, 0.99))


def ask(server, what, query, start, end, **more):
    took = []
    for _ in range(3):
        began = time.monotonic()
        found = server.get("/loki/api/v1/query_range", {"query": query, "start": start, "end": end, "limit": 100, **more})["data"]
        took.append((time.monotonic() - began) * 1000)
    lines = sum(len(s["values"]) for s in found["result"])
    line(server.name, f"{what} ({lines:,} {'points' if more else 'lines'})", min(took), "ms")
    line(server.name, f"{what}, the first time", took[0], "ms")


def queries(binary, directory, lines, ids, gigabytes):
    """Questions to that many raw bytes. Returns the start of their time and how many there were."""
    start = time.time_ns() - 3 * 3600 * SECOND
    requests = Requests(lines, start, ids)
    end = start + len(lines) * 1_000_000 + SECOND
    server = fresh(binary, directory)
    try:
        repetitions = max(1, round(gigabytes * 1e9 / requests.raw))
        sent, busy = kept(server, requests, repetitions)
        raw = requests.raw * repetitions
        line(server.name, "raw GB for the questions", raw / 1e9)
        line(server.name, "ingest of them, raw MB a CPU second", raw / 1e6 / busy)
        freshness(server, requests.compress)
        needle = lines[len(lines) // 3].rsplit("trace_id=", 1)[1][:32]
        last = repetitions - 1
        everything = '{app="web"}'
        ask(server, "needle: a trace's id", f'{everything} |= "{needle}"', start, end)
        ask(server, "needle: a word that is nowhere", f'{everything} |= "xyzzyplugh"', start, end)
        rare = rare_word(lines)
        ask(server, f"rare word {rare!r}: newest 100", f'{everything} |= "{rare}"', start, end)
        minute = {"step": "60"}
        ask(server, f"rare word {rare!r}: counted", f'sum(count_over_time({everything} |= "{rare}" [1m]))', start, end, **minute)
        ask(server, "common word 'Googlebot': newest 100", f'{everything} |= "Googlebot"', start, end)
        ask(server, "common word 'Googlebot': counted", f'sum(count_over_time({everything} |= "Googlebot" [1m]))', start, end, **minute)
        ask(server, "regular expression, newest 100", f'{everything} |~ "HTTP/1.1\\" 50[0-9] [0-9]+5 "', start, end)
        ask(server, "regular expression, counted", f'sum(count_over_time({everything} |~ "HTTP/1.1\\" 50[0-9] [0-9]+5 " [1m]))', start, end, **minute)
        ask(server, "aggregation: lines by pod and minute", f"sum by (pod) (count_over_time({everything}[1m]))", start, end, **minute)
        ask(server, "aggregation: bytes by pod and minute", f"sum by (pod) (bytes_over_time({everything}[1m]))", start, end, **minute)
        line(server.name, "memory after the questions, MB", server.rss() / 1e6)
        line(server.name, "most memory, MB", server.peak() / 1e6)
    finally:
        server.stop(signal.SIGTERM)


def rare_word(lines):
    """A word of about a line in 20,000."""
    seen = {}
    for text in lines:
        for part in set(text.split('"')[1].split(" ")[1].split("/")):
            if part.replace("-", "").isalpha() and len(part) > 8:
                seen[part] = seen.get(part, 0) + 1
    wanted = max(1, len(lines) // 20_000)
    return min(seen, key=lambda w: (abs(seen[w] - wanted), w))


def rival(server, path, raw, name, full):
    """The same lines and, if asked for, questions."""
    _, seconds, cpu, _ = server.load(path)
    data, index = server.sizes()
    line(server.name, f"{name}: disk, % of raw", 100 * (data + index) / raw, "%")
    line(server.name, f"{name}: columns alone", 100 * data / raw, "%")
    line(server.name, f"{name}: index alone", 100 * index / raw, "%")
    line(server.name, f"{name}: ingest, raw MB a CPU second (file, no log)", raw / 1e6 / cpu)
    for what, query in full:
        took = min(server.run(query)[1] for _ in range(3))
        line(server.name, what, took * 1000, "ms")


def spans(binary, directory, count):
    """Spans over OTLP/HTTP, then traces by id and by search."""
    made = Spans()
    each = TRACES * len(SERVICES)
    requests = max(1, count // each)
    start = time.time_ns() - requests * TRACES * 1_000_000
    server = fresh(binary, directory)
    try:
        ids, before, began = [], server.cpu(), time.monotonic()
        made_in = 0.0
        for n in range(requests):
            t = time.monotonic()
            body, last = made.request(start + n * TRACES * 1_000_000)
            made_in += time.monotonic() - t
            if n % max(1, requests // 50) == 0:
                ids.append(last)
            server.export("/v1/traces", body)
        wall, sent = time.monotonic() - began - made_in, server.cpu() - before
        server.settle()
        total = requests * each
        line(server.name, "spans", total)
        line(server.name, "spans a second, until acknowledged", total / wall)
        line(server.name, "spans a CPU second, all work counted", total / (server.cpu() - before))
        records, files, _, _ = server.partitions("traces")
        line(server.name, "disk, bytes a span", files / max(records, 1))
        found = []
        for i in ids * 3:
            t = time.monotonic()
            trace = server.get(f"/tempo/api/traces/{i}", {})
            found.append((time.monotonic() - t) * 1000)
            if str(trace).lower().count("spanid") < len(SERVICES):
                raise SystemExit(f"trace {i} is not whole: {str(trace)[:300]}")
        line(server.name, "trace by id, p50 ms", percentile(found, 0.5))
        line(server.name, "trace by id, p99 ms", percentile(found, 0.99))
        seconds = {"start": start // SECOND, "end": time.time_ns() // SECOND + 3600, "limit": 20}
        for what, params in (
            ("search by service", {"tags": "service.name=cart"}),
            ("search by service and error", {"tags": "service.name=payment status=error"}),
            ("search by an attribute of a thousandth", {"tags": "user.id=user-2919"}),
            ("search by duration", {"tags": "service.name=frontend", "minDuration": "10ms"}),
        ):
            took = []
            for _ in range(5):
                t = time.monotonic()
                traces = server.get("/tempo/api/search", {**params, **seconds})["traces"]
                took.append((time.monotonic() - t) * 1000)
            line(server.name, f"{what} ({len(traces)} traces), ms", min(took))
        line(server.name, "memory after the spans, MB", server.rss() / 1e6)
        line(server.name, "most memory with spans, MB", server.peak() / 1e6)
    finally:
        server.stop(signal.SIGTERM)
