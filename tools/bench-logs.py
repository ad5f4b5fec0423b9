#!/usr/bin/env python3
"""The log index beside ClickHouse, on one machine and the same lines.

Usage: bench-logs.py BINNACLE [--corpus-lines N] [--repeat N] [--gigabytes N] [--spans N] [--only PART] [--packages DIR]

Corpora are made up, the same for every run: lines of a web server, of what runs in a cluster, and of the web server with
a random trace and span id in each. Each goes through Loki's push API (protobuf in snappy, seven streams) into a server of its
own: bytes on disk as a part of the raw bytes, and raw bytes a CPU second with all work behind it; the log is synced before a
request is answered. ClickHouse (chdb-core of PyPI, in a process of its own) reads the same lines from a file.
Then --gigabytes of the lines with ids, repeated with fresh streams and ids, are asked questions; and --spans spans of
traces of eight services are sent over OTLP and looked for.
Packages of PyPI go to --packages, by default a temporary directory.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile


def packages(directory):
    """chdb-core (ClickHouse) and cramjam (snappy), if they are not there."""
    if not os.path.isdir(os.path.join(directory, "cramjam")):
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--root-user-action", "ignore",
                        "--target", directory, "chdb-core==26.9.0", "cramjam==2.14.0"], check=True)
    sys.path.insert(0, directory)
    os.environ["PYTHONPATH"] = directory


# The last hour is what SQL looks at unless told; the lines are older.
OWN = "logs where time >= now() - interval '1 day'"


def questions(lines):
    """What both are asked of the lines with ids: its name, our SQL, ClickHouse's."""
    needle = lines[len(lines) // 3].rsplit("trace_id=", 1)[1][:32]
    own, count = "select count(*) from {table} and ", "SELECT count() FROM d.t WHERE "
    return [
        ("needle: a trace's id", f"{own}body like '%{needle}%'", f"{count}hasToken(body, '{needle}')"),
        ("common word 'Googlebot': counted", f"{own}body like '%Googlebot%'", f"{count}hasToken(body, 'Googlebot')"),
        ("substring 'ooglebo': counted", f"{own}body like '%ooglebo%'", f"{count}body LIKE '%ooglebo%'"),
        ("regular expression, counted", own + "regexp_like(body, 'HTTP/1.1\" 50[0-9] [0-9]+5 ')",
         count + r"match(body, 'HTTP/1.1\" 50[0-9] [0-9]+5 ')"),
        ("aggregation: lines by pod and minute", "select pod, date_trunc('minute', time) m, count(*) from {table} group by 1, 2",
         "SELECT stream, toStartOfMinute(ts) m, count() FROM d.t GROUP BY stream, m"),
        ("aggregation: bytes by pod and minute", "select pod, date_trunc('minute', time) m, sum(octet_length(body)) from {table} group by 1, 2",
         "SELECT stream, toStartOfMinute(ts) m, sum(length(body)) FROM d.t GROUP BY stream, m"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binnacle")
    parser.add_argument("--corpus-lines", type=int, default=600_000)
    parser.add_argument("--repeat", type=int, default=1, help="each corpus so many times, in streams of its own")
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--only", choices=["corpora", "rival", "questions", "spans"], action="append")
    parser.add_argument("--packages")
    args = parser.parse_args()
    wanted = args.only or ["corpora", "rival", "questions", "spans"]
    root = tempfile.mkdtemp(prefix="bench-logs-")
    try:
        packages(args.packages or os.path.join(root, "packages"))
        from bench_logs import measure
        from bench_logs.corpora import CORPORA
        from bench_logs.servers import ClickHouse

        made = {}
        for name in CORPORA if "corpora" in wanted or "rival" in wanted else ["access with ids"]:
            made[name] = list(CORPORA[name](args.corpus_lines))
            raw = sum(len(text) + 1 for text in made[name])
            measure.line("corpus", f"{name}, raw MB", raw / 1e6)
            if "corpora" in wanted:
                own = [(what, statement.format(table=OWN)) for what, statement, _ in questions(made[name])] if name == "access with ids" else []
                measure.corpus(args.binnacle, os.path.join(root, "own-" + name.replace(" ", "-")), name, made[name], "ids" in name, args.repeat, own)
        if "corpora" in wanted:
            measure.otlp(args.binnacle, os.path.join(root, "own-otlp"), made["access"])
        for index in ("text", "tokenbf") if "rival" in wanted else ():
            for name, lines in made.items():
                path = os.path.join(root, "lines")
                with open(path, "w") as f:
                    f.writelines(text + "\n" for text in lines)
                server = ClickHouse(index, os.path.join(root, f"clickhouse-{index}-{name.replace(' ', '-')}"))
                asked = [(what, statement) for what, _, statement in questions(lines)] if name == "access with ids" else []
                try:
                    measure.rival(server, path, os.path.getsize(path), name, asked)
                finally:
                    server.stop()
        if "questions" in wanted:
            measure.queries(args.binnacle, os.path.join(root, "questions"), made["access with ids"], True, args.gigabytes)
        if "spans" in wanted:
            measure.spans(args.binnacle, os.path.join(root, "spans"), args.spans)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
