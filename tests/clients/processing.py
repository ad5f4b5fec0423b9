"""Lines and spans on their way through one server's processors, and on to another's store.

Usage: processing.py DATA_DIRECTORY TOKEN OTHER_DATA_DIRECTORY OTHER_TOKEN
The first is configured to drop, redact, take apart and limit, and to forward to the second.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

HERE, THERE = ((json.load(open(os.path.join(d, "addresses.json"))), t) for d, t in (sys.argv[1:3], sys.argv[3:5]))


def call(server, path, body=None, kind="application/json"):
    addresses, token = server
    headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
    with urllib.request.urlopen(urllib.request.Request(f"http://{addresses['http']}{path}", body, headers)) as r:
        return json.loads(r.read() or b"null")


def wait(what, ready):
    deadline = time.monotonic() + 40
    while True:
        got = ready()
        if got:
            return got
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        time.sleep(0.1)


def lines(server, query):
    params = {"query": query, "start": time.time_ns() - 3600 * 10**9, "end": time.time_ns() + 10**9, "direction": "forward"}
    got = call(server, "/loki/api/v1/query_range?" + urllib.parse.urlencode(params))["data"]["result"]
    return sorted(v[1] for s in got for v in s["values"])


def push(namespace, *texts):
    now = time.time_ns()
    values = [[str(now + n), text] for n, text in enumerate(texts)]
    body = {"streams": [{"stream": {"namespace": namespace, "pod": "p"}, "values": values}]}
    call(HERE, "/loki/api/v1/push", json.dumps(body).encode())


def processors():
    push("shop", "GET /healthz 200", '{"status":503,"card":"4111111111111111"}', "level=info user=ann took=12")
    want = ['level=info user=ann took=12', '{"status":503,"card":"[credit-card]"}']
    assert lines(HERE, '{namespace="shop"}') == sorted(want), lines(HERE, '{namespace="shop"}')
    assert lines(HERE, '{namespace="shop"} | status="503"') == [want[1]]
    assert lines(HERE, '{namespace="shop"} | user="ann"') == [want[0]]
    # Another namespace has other rules: nothing is dropped, and there is a limit.
    push("small", "GET /healthz 200")
    assert lines(HERE, '{namespace="small"}') == ["GET /healthz 200"]
    try:
        for _ in range(40):
            push("small", "more")
        raise AssertionError("the limit has no effect")
    except urllib.error.HTTPError as e:
        assert e.code == 429 and int(e.headers["Retry-After"]) >= 1, e
    return want


def forwarded(want):
    """With the labels that the streams have here."""
    wait("lines there", lambda: len(lines(THERE, '{namespace="shop",pod="p"}')) == 2)
    assert lines(THERE, '{namespace="shop",pod="p"}') == sorted(want)


def span(n, parent, kind, name, millis, failed=False):
    start = time.time_ns() - 10**9
    return {"traceId": f"{7:032x}", "spanId": f"{n:016x}", "parentSpanId": f"{parent:016x}" if parent else "", "name": name,
            "kind": kind, "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + millis * 10**6),
            "status": {"code": 2} if failed else {}}


def spans():
    resource = lambda name: {"attributes": [{"key": "service.name", "value": {"stringValue": name}}]}
    body = {"resourceSpans": [
        {"resource": resource("front"), "scopeSpans": [{"spans": [span(1, 0, 3, "call", 30)]}]},
        {"resource": resource("back"), "scopeSpans": [{"spans": [span(2, 1, 2, "GET /", 20, True)]}]},
    ]}
    call(HERE, "/otlp/v1/traces", json.dumps(body).encode())

    def value(expr):
        got = call(HERE, "/api/v1/query?" + urllib.parse.urlencode({"query": expr}))["data"]["result"]
        return got and float(got[0]["value"][1])

    calls = 'traces_spanmetrics_calls_total{service="back",span_name="GET /",status_code="STATUS_CODE_ERROR"}'
    wait("the calls", lambda: value(calls) == 1)
    assert value('traces_spanmetrics_latency_bucket{service="back",le="0.032"}') == 1
    assert value('traces_service_graph_request_failed_total{client="front",server="back"}') == 1
    # A failed trace is kept, whole; the metrics and the trace are there, too.
    wait("the trace", lambda: len((call(HERE, f"/jaeger/api/traces/{7:032x}")["data"] or [{"spans": []}])[0]["spans"]) == 2)
    there = lambda: call(THERE, "/api/v1/query?" + urllib.parse.urlencode({"query": calls}))["data"]["result"]
    wait("the calls there", there)
    wait("the trace there", lambda: call(THERE, "/jaeger/api/services")["data"].count("back"))


forwarded(processors())
spans()
print("ok")
