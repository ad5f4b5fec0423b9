"""What is sent: remote write requests of pods that live, are replaced, and end."""

import random
import struct
from array import array

STEP_MS = 15_000
METRICS = 50
PER_REQUEST = 5_000
PAST_MS = 20 * 60_000
STALE = struct.pack("<Q", 0x7FF0000000000002)
# A sample is 1 + 8 + 1 + 6 bytes: times of our century in milliseconds take six.
SAMPLE = struct.Struct("<8s7s")


def uvarint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, body):
    return uvarint(number << 3 | 2) + uvarint(len(body)) + body


def kind_of(m):
    return "counter" if m < 20 else "gauge" if m < 30 else "constant" if m < 35 else "float" if m < 40 else "slow"


def name_of(m, prefix="bench"):
    """Five counters of each pod make a metric: 5,000 series."""
    return f"{prefix}_{m - m % 5}_total" if kind_of(m) == "counter" else f"{prefix}_{m}"


def series(pod, prefix="bench"):
    """The 50 series of a pod: (labels as the message's bytes, kind). Counters have a label more."""
    place = {
        "container": "web", "instance": f"10.{pod >> 16}.{pod >> 8 & 255}.{pod & 255}:9090", "job": "kubernetes-pods",
        "metrics_path": "/metrics", "namespace": f"team-{pod % 20}", "node": f"node-{pod % 50}",
        "pod": f"web-{pod % 100}-{pod * 2654435761 & 0xFFFFF:05x}", "service": f"web-{pod % 100}",
    }
    for m in range(METRICS):
        kind = kind_of(m)
        labels = {"__name__": name_of(m, prefix), **place}
        if kind == "counter":
            labels["code"] = f"{m % 5 + 1}00"
        yield b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(labels.items())), kind


def literal_snappy(data):
    """Snappy's block format, all literals: unpacking costs every server the same, next to nothing."""
    out = [uvarint(len(data))]
    for at in range(0, len(data), 65536):
        piece = data[at:at + 65536]
        out += [b"\xf4", struct.pack("<H", len(piece) - 1), piece]
    return b"".join(out)


class Template:
    """A request's bytes, in which only values and times change."""

    def __init__(self, heads):
        out, self.places = bytearray(), []
        for head in heads:
            out += b"\x0a" + uvarint(len(head) + 18) + head + b"\x12\x10\x09"
            self.places.append(len(out))
            out += bytes(15)
        self.bytes = out

    def body(self, values, time):
        tail = b"\x10" + uvarint(time)
        pack, out = SAMPLE.pack_into, self.bytes
        for at, value in zip(self.places, values):
            pack(out, at, value, tail)
        return literal_snappy(bytes(out))


def templates(heads):
    return [Template(heads[at:at + PER_REQUEST]) for at in range(0, len(heads), PER_REQUEST)]


class Load:
    """The same pods at every step."""

    def __init__(self, pods, steps):
        self.rng = random.Random(7)
        all_series = [s for pod in range(pods) for s in series(pod)]
        self.kinds = [k for _, k in all_series]
        self.templates = templates([h for h, _ in all_series])
        self.steps = steps
        self.values = array("d", (self.rng.randrange(100) for _ in all_series))
        self.series = len(all_series)
        self.samples = self.series * steps
        self.names = sorted({name_of(m) for m in range(METRICS)})

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

    def step(self, time):
        raw = self.values.tobytes()
        at = 0
        for t in self.templates:
            n = len(t.places)
            yield t.body([raw[i:i + 8] for i in range(8 * at, 8 * (at + n), 8)], time)
            at += n

    def requests(self):
        for step in range(self.steps):
            if step:
                self.advance()
            yield from self.step(self.start + step * STEP_MS)

    def once_more(self):
        """A last step, which may be the one that a crash would take."""
        self.advance()
        self.end += STEP_MS
        self.samples += self.series
        yield from self.step(self.end)


class Churn:
    """At every step a part of the pods is replaced; the replaced ones say nothing more."""

    def __init__(self, pods, steps, part, first, end):
        self.part, self.first, self.end, self.steps = part, first, end, steps
        self.pods = list(range(first, first + pods))
        self.samples = pods * METRICS * steps
        self.opened = 0

    def requests(self):
        next_pod, value = self.pods[-1] + 1, struct.pack("<d", 1.0)
        for step in range(self.steps):
            if step:
                n = int(len(self.pods) * self.part)
                # The oldest go.
                self.pods = self.pods[n:] + list(range(next_pod, next_pod + n))
                next_pod += n
                self.opened += n * METRICS
            value = struct.pack("<d", float(step))
            heads = [h for pod in self.pods for h, _ in series(pod, "churn")]
            for t in templates(heads):
                yield t.body([value] * len(t.places), self.end + step * STEP_MS)


class Wave:
    """Pods that are all replaced at once: some samples of the new ones, stale markers for the old ones."""

    def __init__(self, pods, first, old, time, steps=4):
        self.pods = range(first, first + pods)
        self.old, self.time, self.steps = old, time, steps
        self.series = pods * METRICS

    def requests(self):
        for pods, value, steps in ((self.pods, struct.pack("<d", 1.0), self.steps), (self.old, STALE, 1)):
            all_templates = templates([h for pod in pods for h, _ in series(pod, "wave")])
            for step in range(steps):
                for t in all_templates:
                    yield t.body([value] * len(t.places), self.time + step * STEP_MS)
