"""History goes in as OpenMetrics and as genuine Prometheus blocks, comes out as Parquet for DuckDB, and a real Prometheus
reads it by remote read: all must tell the same samples.

Usage: exchange.py BINNACLE DATA_DIR
"""

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import duckdb

BINNACLE, DATA = sys.argv[1:]
DAY = 86_400
# Two days old, and on no boundary that versions of Prometheus see differently.
BEGIN = int(time.time()) // DAY * DAY - 2 * DAY + 7
STEPS, STEP = 1_000, 15


def samples():
    """(labels, [(seconds, value)])"""
    for i in range(5):
        points = [(BEGIN + n * STEP, 1000 * i + n + math.sin(n) * (i % 2)) for n in range(STEPS)]
        yield {"instance": f"é{i}", "zone": "a" if i < 3 else "b"}, points


def openmetrics(name):
    text = [f"# TYPE {name} gauge"]
    for labels, points in samples():
        inside = ",".join(f'{n}="{v}"' for n, v in labels.items())
        text += [f"{name}{{{inside}}} {v!r} {t}" for t, v in points]
    return "\n".join(text + ["# EOF", ""])


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def query(address, expr, token=None):
    # Between two samples: 2.x takes one that lies on the edge of a range, 3.x does not.
    ask = {"query": expr, "start": BEGIN + 4, "end": BEGIN + STEPS * STEP, "step": 60}
    url = f"http://{address}/api/v1/query_range?" + urllib.parse.urlencode(ask)
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request) as r:
        found = json.load(r)["data"]["result"]
    return sorted((sorted(s["metric"].items()), s["values"]) for s in found)


def prometheus(directory, api, token):
    """Debian's, with nothing of its own."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    config = os.path.join(directory, "prometheus.yml")
    with open(config, "w") as f:
        f.write(
            f"remote_read:\n- url: http://{api}/api/v1/read\n  read_recent: true\n"
            f"  authorization: {{credentials: {token}}}\n"
        )
    log = open(os.path.join(directory, "prometheus.log"), "w")
    process = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/data", f"--web.listen-address={address}"],
        stdout=log,
        stderr=log,
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/-/ready")
            return process, address
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                sys.exit(open(log.name).read())
            time.sleep(0.1)


def same(a, b):
    """Numbers as far as two ways of adding them may differ."""
    assert len(a) == len(b) and a, f"{len(a)} series and {len(b)}"
    for (la, va), (lb, vb) in zip(a, b):
        assert la == lb and len(va) == len(vb), f"{la} {lb}"
        for (ta, x), (tb, y) in zip(va, vb):
            assert ta == tb and math.isclose(float(x), float(y), rel_tol=1e-9), f"{la}: {x} and {y} at {ta}"


def main():
    directory = tempfile.mkdtemp()
    token = run(BINNACLE, "token", "create", "--data-dir", DATA).strip()
    with open(os.path.join(DATA, "addresses.json")) as f:
        api = json.load(f)["http"]
    n = 5 * STEPS
    for name in ("by_file", "by_block"):
        with open(f"{directory}/{name}.om", "w") as f:
            f.write(openmetrics(name))
    run("promtool", "tsdb", "create-blocks-from", "openmetrics", f"{directory}/by_block.om", f"{directory}/blocks")
    for path in (f"{directory}/by_file.om", f"{directory}/blocks"):
        said = run(BINNACLE, "import", "metrics", path, "--data-dir", DATA)
        assert said.strip() == f"{n} samples imported, 0 refused", said

    process, theirs = prometheus(directory, api, token)
    try:
        for name in ("by_file", "by_block"):
            for expr in (name, f"sum by (zone) (rate({name}[5m]))", f'max_over_time({name}{{zone="b"}}[10m])'):
                same(query(api, expr, token), query(theirs, expr))
    finally:
        process.terminate()
        process.wait()

    out = f"{directory}/out.parquet"
    span = ["--start", str(BEGIN), "--end", str(BEGIN + STEPS * STEP), "--data-dir", DATA]
    run(BINNACLE, "export", "metrics", "--match", '{__name__=~"by_.*"}', "--out", out, *span)
    for name in ("by_file", "by_block"):
        for labels, points in samples():
            where = f"name = '{name}' and instance = '{labels['instance']}' and zone = '{labels['zone']}'"
            got = duckdb.sql(f"select epoch_ms(ts), value from '{out}' where {where}").fetchall()
            want = [(t * 1000, v) for t, v in points]
            assert got == want, f"{where}: {len(got)} rows, {got[:2]}, not {want[:2]}"
    print("ok")


main()
