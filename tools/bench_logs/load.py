"""Loki push requests and OTLP traces, encoded once and changed in place for each repetition."""

import os
import struct

from bench_metrics.load import field, uvarint

from .corpora import STREAMS

HEX = b"0123456789abcdef"
REQUEST_LINES = 2800


def padded(n, width):
    """A number of always so many bytes, so that it can be changed in place."""
    out = bytearray()
    for i in range(width):
        out.append(n & 0x7F | (0x80 if i < width - 1 else 0))
        n >>= 7
    return bytes(out)


class Requests:
    """A corpus as requests of Loki's push API, in seven streams. Each repetition has streams and ids of its own."""

    def __init__(self, lines, start, ids):
        import cramjam

        self.compress = cramjam.snappy.compress_raw
        self.requests, self.raw, self.lines = [], 0, len(lines)
        for at in range(0, len(lines), REQUEST_LINES):
            body, replicas, places = bytearray(), [], []
            for s in range(STREAMS):
                stream = bytearray(field(1, b'{app="web", pod="pod-%d", replica="0000"}' % s))
                replica = len(stream) - 6
                found = []
                for n in range(at + s, min(at + REQUEST_LINES, len(lines)), STREAMS):
                    line = lines[n].encode()
                    self.raw += len(line) + 1
                    nanos = start + n * 1_000_000
                    time = b"\x08" + padded(nanos // 10**9, 5) + b"\x10" + padded(nanos % 10**9, 5)
                    entry = field(2, field(1, time) + field(2, line))
                    stream += entry
                    if ids:
                        found += [len(stream) - 57, len(stream) - 16]
                        assert stream[found[-2] - 9:found[-2]] == b"trace_id=", line
                head = b"\x0a" + uvarint(len(stream))
                offset = len(body) + len(head)
                body += head + stream
                replicas.append(offset + replica)
                places += [offset + f for f in found]
            self.requests.append((body, replicas, places))

    def repetition(self, number):
        for body, replicas, places in self.requests:
            for at in replicas:
                body[at:at + 4] = b"%04d" % number
            if number:
                fresh = os.urandom(len(places) * 12).hex().encode()
                used = 0
                for i, at in enumerate(places):
                    size = 16 if i % 2 else 32
                    body[at:at + size] = fresh[used:used + size]
                    used += size
            yield bytes(self.compress(bytes(body)))


SERVICES = ["frontend", "cart", "checkout", "payment", "shipping", "catalog", "currency", "email"]
TRACES = 500


def attribute(key, value):
    return field(9, field(1, key) + field(2, field(1, value)))


class Spans:
    """Export requests of traces with a span in each of eight services, changed in place."""

    def __init__(self):
        self.body, self.traces = bytearray(), [[] for _ in range(TRACES)]
        for s, service in enumerate(SERVICES):
            spans = bytearray()
            places = []
            for t in range(TRACES):
                span = bytearray()
                span += field(1, bytes(16)) + field(2, bytes(8))
                if s:
                    span += field(4, bytes(8))
                name = b"%s /api/v%d/%s" % ((b"GET", b"POST")[t % 2], t % 3, SERVICES[(s + t) % 8].encode())
                span += field(5, name) + b"\x30" + bytes([2 + s % 2])
                times = len(span)
                span += b"\x39" + bytes(8) + b"\x41" + bytes(8)
                span += attribute(b"http.route", b"/api/v%d/{id}" % (t % 3)) + attribute(b"http.status_code", b"%d" % (500 if t % 50 == 0 else 200))
                span += attribute(b"user.id", b"user-%d" % (t * 7919 % 5000)) + attribute(b"net.peer.name", b"%s.default.svc" % SERVICES[(s + 1) % 8].encode())
                if t % 50 == 0:
                    span += field(15, b"\x18\x02")
                head = b"\x12" + uvarint(len(span))
                places.append((len(spans) + len(head), times, bool(s)))
                spans += head + span
            resource = field(1, field(1, field(1, b"service.name") + field(2, field(1, service.encode()))))
            scope = b"\x12" + uvarint(len(spans)) + spans
            head = b"\x0a" + uvarint(len(resource) + len(scope)) + resource
            at = len(self.body) + len(head) + len(scope) - len(spans)
            self.body += head + scope
            for t, (where, times, child) in enumerate(places):
                self.traces[t].append((at + where, times, child))

    def request(self, start):
        """Spans from `start` on, a trace a millisecond; and the id of one of them."""
        body, random, used = self.body, os.urandom(TRACES * (16 + 8 * len(SERVICES))), 0
        for t, spans in enumerate(self.traces):
            trace = random[used:used + 16]
            used += 16
            began, parent = start + t * 1_000_000, b""
            for i, (at, times, child) in enumerate(spans):
                own = random[used:used + 8]
                used += 8
                body[at + 2:at + 18] = trace
                body[at + 20:at + 28] = own
                if child:
                    body[at + 30:at + 38] = parent
                parent = own
                first = began + i * 100_000
                struct.pack_into("<q", body, at + times + 1, first)
                struct.pack_into("<q", body, at + times + 10, first + (8 - i) * 1_000_000 + trace[0] * 10_000)
        return bytes(body), trace.hex()
