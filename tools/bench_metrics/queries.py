"""What is asked: queries whose CPU time counts, and many more whose answers are only compared."""

import json
import math
import time
import urllib.error
import urllib.parse

# Questions are asked beside the samples' times: since 3.0 Prometheus' ranges are open on the left, 2.42's are not.
BESIDE = 0.001
# Prometheus of 2023 answers these too: the newer language is what promqltest scripts are for.
# What, the query, and at how many steps of 15 s; 0 asks for one time.
QUERIES = [
    ("sum by(ns)(rate), 5 k series x 200", "sum by (namespace) (rate(bench_0_total[5m]))", 200),
    ("three sum(rate), 15 k series x 60", "sum(rate(bench_0_total[5m])) + sum(rate(bench_5_total[5m])) + sum(rate(bench_10_total[5m]))", 60),
    ("avg by(pod)(rate[2m]), 5 k series", "avg by (pod) (rate(bench_5_total[2m]))", 0),
    ("one deployment's sum(rate)", 'sum(rate(bench_0_total{pod=~"web-1-.*"}[1m]))', 0),
    ("topk(10), 5 k series", "topk(10, bench_10_total)", 0),
    ("quantile by ns, 5 k series x 200", "quantile by (namespace) (0.9, bench_15_total)", 200),
    ("count of everything", 'count({__name__=~"bench_.+"})', 0),
    ("topk(10) x 40", "topk(10, bench_36)", 40),
    ("vector matching x 40", "bench_20 / on (pod) bench_21", 40),
    ("over_time x 40", "max_over_time(bench_35[5m]) - min_over_time(bench_35[5m])", 40),
    ("subquery", "max_over_time(sum(rate(bench_0_total[1m] offset 1s))[10m:30s])", 0),
    ("deriv x 40", "deriv(bench_36[5m])", 40),
    ("resets and changes x 40", "resets(bench_0_total[10m]) + changes(bench_5_total[10m])", 40),
    ("label_replace", 'label_replace(bench_20, "n", "$1", "pod", "web-(.*)-.*")', 0),
    ("offset and @ x 40", "bench_20 offset 5m - bench_20 @ end()", 40),
    ("count_values x 40", 'count_values("v", bench_21)', 40),
    ("and/unless x 40", "bench_20 > 50 unless bench_21 > 3", 40),
    ("absent", 'absent(bench_20{pod="none"})', 0),
    ("stddev x 40", "stddev by (node) (bench_35)", 40),
]
COUNT_ALL = QUERIES[6][0]
# An HPA asks every second, and nobody else is to be in its way.
HPA = 'sum(rate(bench_0_total{namespace="team-1",pod=~"web-1-.*"}[1m]))'
HPA_ROUNDS = 500


def checks():
    """Queries whose answers are only compared: each function, aggregation and operator over each kind of series."""
    kinds = ["bench_0_total", "bench_20", "bench_30", "bench_36", "bench_45"]
    ranged = (
        "rate increase delta idelta irate deriv resets changes avg_over_time min_over_time max_over_time sum_over_time "
        "count_over_time last_over_time present_over_time stddev_over_time stdvar_over_time absent_over_time"
    ).split()
    plain = (
        "abs ceil floor exp ln log2 log10 sqrt sgn round sin cos tan atan sinh tanh deg rad timestamp sort minute hour "
        "day_of_week day_of_month days_in_month month year absent scalar"
    ).split()
    totals = "sum avg min max count stddev stdvar group".split()
    for kind in kinds:
        one = f'{kind}{{namespace="team-3"}}'
        for f in ranged:
            yield f"{f}({one}[3m])"
            yield f"{f}({one}[97s] offset 41s)"
            yield f"sum by (node) ({f}({one}[4m] @ end()))"
        for f in plain:
            yield f"{f}({one})"
        for f in totals:
            yield f"{f} by (node) ({one})"
            yield f"{f} without (pod, instance, service) ({one} offset 2m)"
        yield f"quantile_over_time(0.37, {one}[5m])"
        yield f"predict_linear({one}[5m], 600)"
        yield f"clamp({one}, 3, 40) - clamp_min({one}, 5) * clamp_max({one}, 7)"
        yield f"quantile by (node) (0.7, {one})"
        yield f"max_over_time((rate({one}[2m] offset 1s))[5m:20s])"
        yield f"sum_over_time({one}[2m:13s] offset 7s)"
        yield f"{one} * on (pod) group_left (node) max by (pod, node) (bench_21)"
        for op in "+ - * / % ^ == != > < >= <= and or unless".split():
            # Where only one of several matches is kept, Prometheus 3 refuses what 2.42 lets pass.
            side = f"max by (pod) ({one})" if kind.endswith("_total") else one
            yield f"{side} {op} on (pod) bench_37{{namespace=~\"team-[1-3]\"}}"
        for op in "+ - * / % ^".split():
            yield f"{one} {op} 2.5"
            yield f"1.5 {op} -{one}"
        for op in "== != > < >= <=".split():
            yield f"{one} {op} bool 4"
            yield f"3 {op} {one}"
    yield "vector(time()) + scalar(bench_20{instance=\"10.42.0.3:9090\"})"
    yield "label_join(bench_20, \"j\", \"/\", \"namespace\", \"pod\")"
    yield "histogram_quantile(0.9, label_replace(bench_0_total, \"le\", \"$1\", \"pod\", \"web-([0-9]+)-.*\"))"
    yield "{__name__=~\"bench_2[0-3]\", node!~\"node-[0-4].*\", namespace=\"team-7\"}"
    yield "-bench_20{container!=\"\", none=\"\", pod=~\".*-.*\"} unless bench_21 > 2 or bench_22"


def points(answer):
    """{labels: [(time, value)]} of an answer, whatever its type."""
    kind, result = answer["resultType"], answer["result"]
    if kind == "scalar":
        return {(): [result]}
    return {tuple(sorted(s["metric"].items())): s.get("values") or [s["value"]] for s in result}


def near(a, b):
    a, b = float(a), float(b)
    return a == b or math.isnan(a) and math.isnan(b) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def difference(ours, theirs):
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        return f"{len(odd)} of {len(theirs)} series on one side only, such as {odd[0]}"
    for labels, expected in theirs.items():
        got = ours[labels]
        if [t for t, _ in got] != [t for t, _ in expected]:
            return f"{labels}: times differ, {len(got)} and {len(expected)} points"
        for (t, a), (_, b) in zip(got, expected):
            if not near(a, b):
                return f"{labels} at {t}: {a}, not {b}"
    return None


def measure(server, load, expected, line):
    """CPU of each query. Gives back how many answers differ from those expected, which the first server tells, and the
    sum of all CPU milliseconds."""
    failures, everything = 0, 0.0
    for what, query, steps in QUERIES:
        end = load.end / 1000 + BESIDE
        params = {"query": query, "time": end}
        if steps:
            start = max(load.start / 1000 + BESIDE, end - 15 * (steps - 1))
            params = {"query": query, "start": start, "end": end, "step": 15}
        path = "/query_range" if steps else "/query"
        answer = points(server.ask(path, params))
        # The kernel counts in hundredths of a second: short queries are asked more often.
        before, rounds = server.cpu(), 0
        while rounds < 5 or rounds < 40 and server.cpu() - before < 0.3:
            server.ask(path, params)
            rounds += 1
        spent = (server.cpu() - before) * 1000 / rounds
        everything += spent
        line(server.name, f"{what}, CPU ms", spent)
        if expected.setdefault(what, answer) is not answer and server.name == "binnacle":
            wrong = difference(answer, expected[what])
            if wrong:
                failures += 1
                print(f"{server.name:<16} {query}\n{'':<16}   {wrong}")
    return failures, everything


def hpa(server, load):
    """Milliseconds from question to answer over one connection, as a client sees them: p50 and p99."""
    path = f"{server.query}/query?" + urllib.parse.urlencode({"query": HPA, "time": load.end / 1000 + BESIDE})
    took = []
    server.pause()
    for _ in range(HPA_ROUNDS):
        began = time.perf_counter()
        server.link.request("GET", path, headers=server.headers)
        answer = server.link.getresponse()
        text = answer.read()
        took.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{server.name}: {answer.status} {text[:300]}")
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100]


def compare(server, load, expected, line):
    """Answers that Prometheus gave, or gives now."""
    failures = 0
    expected.setdefault("checks", {})
    queries = list(checks())
    for query in queries if server.name != "VictoriaMetrics" else []:
        end = load.end / 1000 + BESIDE
        params = {"query": query, "start": max(load.start / 1000 + BESIDE, end - 600), "end": end, "step": 47}
        try:
            answer = points(server.ask("/query_range", params))
        except urllib.error.HTTPError as e:
            answer = f"{e.code} {json.load(e).get('errorType')}"
        if server.name == "Prometheus":
            expected["checks"][query] = answer
        elif (theirs := expected["checks"].get(query)) is not None:
            both = isinstance(answer, dict) and isinstance(theirs, dict)
            wrong = difference(answer, theirs) if both else None if answer == theirs else f"{answer}, not {theirs}"
            if wrong:
                failures += 1
                print(f"{server.name:<16} {query}\n{'':<16}   {wrong}")
    if server.name == "binnacle" and expected["checks"]:
        line(server.name, "queries compared with Prometheus", len(queries) + len(QUERIES))
    return failures
