"""What is measured of one server, and the table at the end."""

import math
import os
import platform
import signal
import time

from . import queries
from .load import METRICS, Churn, Wave
from .queries import BESIDE, points

# The machine has other things to do: CPU seconds of the server count, not the clock.
CHURN_PART = 0.25
WAVES = 3
# What the table shows: name, measured as, better when larger.
TABLE = [
    ("ingest, samples a CPU second", "steady", True),
    ("the same with the work behind it", "steady_all", True),
    ("ingest with 25 % new series", "churn", True),
    ("memory, bytes a live series", "live", False),
    ("memory, bytes a dead series", "dead", False),
    ("kill -9 to serving, s", "restart", False),
    ("acknowledged samples lost", "lost", False),
    ("log, bytes a sample", "wal", False),
    ("disk without index, bytes a sample", "disk", False),
    ("node_exporter, with index", "recorded", False),
    ("the same every 15 s", "restamped", False),
    ("queries, CPU ms in all", "queries", False),
    ("an HPA's query, p50 ms", "hpa_p50", False),
    ("an HPA's query, p99 ms", "hpa_p99", False),
]


def line(who, what, value):
    shown = f"{value:,.3f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"
    print(f"{who:<16} {what:<44} {shown:>16}", flush=True)


def ingest(server, load):
    """Samples a CPU second, while they are sent and with the work that follows."""
    before, began = server.cpu(), time.monotonic()
    server.load(load)
    wall = time.monotonic() - began
    busy = server.cpu() - before
    server.settle()
    return load.samples / busy, load.samples / (server.cpu() - before), load.samples / wall


def held(server, load):
    """Samples of the steady load that the server gives back."""
    span = int(load.end - load.start) // 1000 + 60
    # Metric by metric: without their names the series of a pod are the same.
    total = 0
    for name in load.names:
        query = f"sum(count_over_time({name}[{span}s]))"
        found = points(server.ask("/query", {"query": query, "time": load.end / 1000 + BESIDE}))
        total += int(float(next(iter(found.values()))[0][1])) if found else 0
    return total


def run(server, load, expected, pods, churn_steps):
    """Gives back the figures by name, and how many answers differ."""
    out = {"version": server.version()}
    line(server.name, "start, s", server.start())
    server.settle()
    idle = server.rss()
    line(server.name, "memory when empty, MB", idle / 1e6)
    out["steady"], out["steady_all"], wall = ingest(server, load)
    line(server.name, "samples a CPU second takes", out["steady"])
    line(server.name, "the same, with the work behind it", out["steady_all"])
    line(server.name, "samples a second, this client's pace", wall)
    out["live"] = (server.rss() - idle) / load.series
    line(server.name, "memory, MB", server.rss() / 1e6)
    line(server.name, "memory over the empty one's, bytes a series", out["live"])
    failures, out["queries"] = queries.measure(server, load, expected, line)
    out["hpa_p50"], out["hpa_p99"] = queries.hpa(server, load)
    line(server.name, "an HPA's query, p50 ms", out["hpa_p50"])
    line(server.name, "an HPA's query, p99 ms", out["hpa_p99"])
    failures += queries.compare(server, load, expected, line)
    for key, what, value in server.disk(load.samples):
        line(server.name, what, value)
        if key:
            out[key] = value

    # Samples that a crash may take: acknowledged, and the server dies at once.
    server.pause()
    for body in load.once_more():
        server.send(body)
    server.stop(signal.SIGKILL)
    out["restart"] = server.start()
    line(server.name, "serving after a kill, s", out["restart"])
    line(server.name, "of which CPU, s", server.cpu())
    out["lost"] = load.samples - held(server, load)
    line(server.name, "acknowledged samples lost", out["lost"])
    if out["lost"] and server.name == "binnacle":
        failures += 1

    churn = Churn(pods, churn_steps, CHURN_PART, 10 * pods, load.end)
    out["churn"], everything, _ = ingest(server, churn)
    line(server.name, "samples a CPU second, a quarter new series", out["churn"])
    line(server.name, "the same, with the work behind it", everything)

    # Waves of pods: what is left of a wave once it is gone is what its series cost when dead.
    first, old = 100 * pods, []
    for wave in range(WAVES + 1):
        w = Wave(pods, first, old, load.end + wave * 8 * 15_000)
        server.load(w)
        server.settle()
        old, first = w.pods, first + pods
        if wave == 0:
            begin = server.rss()
    out["dead"] = (server.rss() - begin) / (WAVES * pods * METRICS)
    line(server.name, "memory, bytes a dead series", out["dead"])
    server.stop(signal.SIGTERM)
    return out, failures


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), platform.machine())
    with open("/proc/meminfo") as f:
        memory = int(f.readline().split()[1]) / 1e6
    return f"{os.cpu_count()} x {cpu}, {memory:.0f} GB, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}"


def table(results):
    """All servers beside each other; in brackets how many times better binnacle is."""
    print(f"\n{machine()}")
    for name, figures in results.items():
        print(f"{name}: {figures['version']}")
    print(f"\n{'':<36}" + "".join(f"{name:>28}" for name in results))
    ours = results.get("binnacle", {})
    for what, key, larger in TABLE:
        cells = []
        for name, figures in results.items():
            value = figures.get(key, math.nan)
            cell = "-" if math.isnan(value) else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
            mine = ours.get(key, math.nan)
            if name != "binnacle" and mine > 0 and value > 0:
                cell += f" ({mine / value if larger else value / mine:.2f}x)"
            cells.append(f"{cell:>28}")
        print(f"{what:<36}" + "".join(cells))
