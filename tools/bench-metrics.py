#!/usr/bin/env python3
"""The metrics engine beside Prometheus and VictoriaMetrics, on one machine and the same samples.

Usage: bench-metrics.py BINNACLE [--pods N] [--steps N] [--churn-steps N] [--only NAME] [--recording FILE] [--scrapes N]

First node_exporter is recorded for N seconds, unless FILE is there, and each server gets the recording.
Each server takes the same remote write requests: pods x 50 series of 9 labels, a sample every 15 s; then pods of which a
quarter is replaced at every step, then waves of pods that are replaced whole, with stale markers.
Printed: samples a CPU second takes, memory a live and a dead series, bytes on disk, the CPU time of queries, how long it
does not serve after a kill and what was lost by it; at the end a table with the ratios. Every answer is compared with
Prometheus' and what differs is printed; that, or a lost sample, makes the exit code 1.
Debian's packages are fetched into a temporary directory and not installed. They are of 2022 and 2023.
"""

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

from bench_metrics.load import Load
from bench_metrics.measure import line, run, table
from bench_metrics.recorded import find, measure as measure_recorded, record
from bench_metrics.servers import Binnacle, Prometheus, Victoria


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binnacle")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--churn-steps", type=int, default=20)
    parser.add_argument("--scrapes", type=int, default=1042)
    parser.add_argument("--recording", default=os.path.join(tempfile.gettempdir(), "bench-metrics-recording.gz"))
    parser.add_argument("--only", choices=["prometheus", "victoria", "binnacle"], action="append")
    args = parser.parse_args()
    wanted = args.only or ["prometheus", "victoria", "binnacle"]
    failures, expected, results = 0, {}, {}
    root = tempfile.mkdtemp(prefix="bench-metrics-")
    try:
        packages = [p for p, n in (("prometheus", "prometheus"), ("victoria-metrics", "victoria")) if n in wanted]
        packages.append("prometheus-node-exporter")
        for package in packages:
            subprocess.run(["apt-get", "download", "-q", package], cwd=root, check=True, capture_output=True)
        for deb in glob.glob(root + "/*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
        record(find(root), args.recording, args.scrapes)
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
                    results[server.name], wrong = run(server, load, expected, args.pods, args.churn_steps)
                    failures += wrong
                    results[server.name] |= measure_recorded(kind, binary, f"{root}/{key}", args.recording, line)
                finally:
                    if server.process.poll() is None:
                        server.process.kill()
                        server.process.wait()
        table(results)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if failures:
        sys.exit(f"{failures} answers differ from Prometheus', or samples were lost")


if __name__ == "__main__":
    main()
