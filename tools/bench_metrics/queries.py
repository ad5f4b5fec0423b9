"""What is asked: queries whose CPU time counts, and many more whose answers are only compared."""

import math
import urllib.error
import json

# Questions are asked beside the samples' times: since 3.0 Prometheus' ranges are open on the left, 2.42's are not.
BESIDE = 0.001
# Prometheus of 2023 answers these too: the newer language is what promqltest scripts are for.
QUERIES = [
    ("sum by(ns)(rate), 5 k series, range", "sum by (namespace) (rate(bench_0_total[5m]))", True),
    ("three sum(rate), 15 k series, range", "sum(rate(bench_0_total[5m])) + sum(rate(bench_1_total[5m])) + sum(rate(bench_2_total[5m]))", True),
    ("avg by(pod)(rate[2m]), instant", "avg by (pod) (rate(bench_1_total[2m]))", False),
    ("one deployment's sum(rate)", 'sum(rate(bench_0_total{pod=~"web-1-.*"}[1m]))', False),
    ("topk(10), range", "topk(10, bench_36)", True),
    ("quantile by ns, range", "quantile by (namespace) (0.9, bench_35)", True),
    ("count of everything, instant", 'count({__name__=~"bench_.+"})', False),
    ("vector matching, range", "bench_20 / on (pod) bench_21", True),
    ("over_time, range", "max_over_time(bench_35[5m]) - min_over_time(bench_35[5m])", True),
    ("subquery, instant", "max_over_time(sum(rate(bench_0_total[1m] offset 1s))[10m:30s])", False),
    ("deriv, range", "deriv(bench_36[5m])", True),
    ("resets and changes, range", "resets(bench_0_total[10m]) + changes(bench_20[10m])", True),
    ("label_replace, instant", 'label_replace(bench_20, "n", "$1", "pod", "web-(.*)-.*")', False),
    ("offset and @, range", "bench_20 offset 5m - bench_20 @ end()", True),
    ("count_values, range", 'count_values("v", bench_21)', True),
    ("and/unless, range", "bench_20 > 50 unless bench_21 > 3", True),
    ("absent, instant", 'absent(bench_20{pod="none"})', False),
    ("stddev, range", "stddev by (node) (bench_35)", True),
]


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
            yield f"{one} {op} on (pod) bench_37{{namespace=~\"team-[1-3]\"}}"
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
    """CPU of each query; gives back how many answers differ from those expected, which the first server tells."""
    failures = 0
    for what, query, ranged in QUERIES:
        end = load.end / 1000 + BESIDE
        params = {"query": query, "time": end}
        if ranged:
            params = {"query": query, "start": max(load.start / 1000 + BESIDE, end - 600), "end": end, "step": 15}
        path = "/query_range" if ranged else "/query"
        answer = points(server.ask(path, params))
        before, rounds = server.cpu(), 5
        for _ in range(rounds):
            server.ask(path, params)
        line(server.name, f"{what}, CPU ms", (server.cpu() - before) * 1000 / rounds)
        if expected.setdefault(what, answer) is not answer and server.name == "binnacle":
            wrong = difference(answer, expected[what])
            if wrong:
                failures += 1
                print(f"{server.name:<16} {query}\n{'':<16}   {wrong}")
    return failures


def compare(server, load, expected, line):
    """Answers that Prometheus gave, or gives now."""
    failures = 0
    expected.setdefault("checks", {})
    queries = list(checks())
    for query in queries if server.name != "VictoriaMetrics" else []:
        end = load.end / 1000 + BESIDE
        params = {"query": query, "start": max(load.start / 1000, end - 600), "end": end, "step": 47}
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
