"""Other people's senders of logs and spans, each through its own protocol; what they sent must then be found, once.

Usage: senders.py DATA_DIRECTORY TOKEN
The server listens for every protocol; DATA_DIRECTORY/addresses.json says where.
"""

import gzip
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import logging_loki
import msgpack
from elasticsearch import Elasticsearch, helpers
from fluent import sender as fluent
from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter as JsonLogs
from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter as JsonSpans
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

DATA, TOKEN = sys.argv[1:]
ADDRESSES = json.load(open(os.path.join(DATA, "addresses.json")))
BEARER = {"Authorization": f"Bearer {TOKEN}"}
START = time.time_ns() - 3600 * 10**9


def ask(path, **params):
    url = f"http://{ADDRESSES['http']}{path}?" + urllib.parse.urlencode(params)
    with urllib.request.urlopen(urllib.request.Request(url, headers=BEARER)) as r:
        return json.load(r)


def lines(query):
    """Streams with their lines, oldest first."""
    got = ask("/loki/api/v1/query_range", query=query, start=START, end=time.time_ns() + 10**9, limit=5000,
              direction="forward")
    return [(s["stream"], v[1]) for s in got["data"]["result"] for v in s["values"]]


def wait(what, ready):
    deadline = time.monotonic() + 20
    while True:
        got = ready()
        if got:
            return got
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        time.sleep(0.05)


def found(query, want):
    """Exactly these lines, in any order."""
    wait(query, lambda: len(lines(query)) >= len(want))
    got = lines(query)
    assert sorted(line for _, line in got) == sorted(want), f"{query}: {[line for _, line in got]}, not {want}"
    return got


def opentelemetry():
    """The SDK for Python: logs within spans, over each door; a trace id leads from the one to the other."""
    grpc, http = ADDRESSES["otlp_grpc"], f"http://{ADDRESSES['otlp_http']}/v1"
    doors = {
        "grpc": (GrpcLogs(endpoint=f"http://{grpc}", insecure=True), GrpcSpans(endpoint=f"http://{grpc}", insecure=True)),
        "http": (
            HttpLogs(endpoint=f"{http}/logs", compression=Compression.Gzip),
            HttpSpans(endpoint=f"{http}/traces", compression=Compression.Gzip),
        ),
        "json": (JsonLogs(endpoint=f"{http}/logs"), JsonSpans(endpoint=f"{http}/traces")),
        "loki": (HttpLogs(endpoint=f"http://{ADDRESSES['http']}/loki/otlp/v1/logs", headers=BEARER), None),
    }
    for door, (logs, spans) in doors.items():
        resource = Resource.create({"service.name": f"otel-{door}", "host.arch": "x"})
        provider = LoggerProvider(resource=resource)
        provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
        log = logging.getLogger(f"otel-{door}")
        log.propagate = False
        log.addHandler(LoggingHandler(logger_provider=provider))
        tracing = TracerProvider(resource=resource)
        if spans:
            tracing.add_span_processor(SimpleSpanProcessor(spans))
        with tracing.get_tracer("test").start_as_current_span("work", attributes={"n": 7}) as span:
            trace = f"{span.get_span_context().trace_id:032x}"
            log.error("failed by %s", door, extra={"answer": 42})
        provider.shutdown()
        tracing.shutdown()
        selector = f'{{service_name="otel-{door}"}}'
        found(selector + ' |= "failed"', [f"failed by {door}"])
        found(selector + f' | trace_id="{trace}"', [f"failed by {door}"])
        found(selector + ' | answer="42"', [f"failed by {door}"])
        found(selector + ' | detected_level="error"', [f"failed by {door}"])
        if spans:
            got = wait("the trace", lambda: ask(f"/jaeger/api/traces/{trace}")["data"])
            assert [s["operationName"] for s in got[0]["spans"]] == ["work"], got


def elasticsearch():
    """The official client's bulk helper, through the authenticated door and the open one."""
    doors = {
        "bearer": Elasticsearch(f"http://{ADDRESSES['http']}/elastic", bearer_auth=TOKEN),
        "password": Elasticsearch(f"http://{ADDRESSES['http']}/elastic", basic_auth=("anybody", TOKEN)),
        "open": Elasticsearch(f"http://{ADDRESSES['elasticsearch']}", http_compress=True),
    }
    for door, client in doors.items():
        assert client.info()["tagline"] == "You Know, for Search"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        documents = [
            {"_op_type": "create", "_index": f"es-{door}", "@timestamp": now, "message": f"document {n}",
             "log": {"level": "warn"}, "event": {"sequence": n}}
            for n in range(1200)
        ]
        done, errors = helpers.bulk(client, documents, chunk_size=500)
        assert (done, errors) == (1200, []), (done, errors)
        got = found(f'{{index="es-{door}"}} | event_sequence=`7`', ["document 7"])
        assert got[0][0]["detected_level"] == "warn", got
        found(f'{{index="es-{door}"}}', [f"document {n}" for n in range(1200)])
        ok, bad = helpers.bulk(client, [{"_op_type": "delete", "_index": "x", "_id": "1"}], raise_on_error=False)
        assert ok == 0 and bad[0]["delete"]["status"] == 400, bad
        client.close()
    nobody = Elasticsearch(f"http://{ADDRESSES['http']}/elastic", bearer_auth="wrong")
    try:
        helpers.bulk(nobody, [{"_index": "x", "message": "x"}])
        raise AssertionError("taken without credentials")
    except Exception as e:
        assert "401" in str(e), e


def rsyslog():
    """Debian's rsyslog: forwarded over TCP in both framings, over UDP, and by omelasticsearch."""
    host = lambda door: ADDRESSES[door].rsplit(":", 1)
    (tcp, tcp_port), (udp, udp_port), (es, es_port) = host("syslog_tcp"), host("syslog_udp"), host("elasticsearch")
    target = lambda ip, port, proto, framing: (
        f'action(type="omfwd" target="{ip}" port="{port}" protocol="{proto}" {framing} '
        'template="RSYSLOG_SyslogProtocol23Format" action.resumeRetryCount="-1")'
    )
    with tempfile.TemporaryDirectory() as d:
        config = f"""
            global(workDirectory="{d}")
            module(load="imuxsock" SysSock.Use="off")
            module(load="omelasticsearch")
            input(type="imuxsock" Socket="{d}/log" CreatePath="on")
            template(name="doc" type="list" option.jsonf="on") {{
              property(outname="@timestamp" name="timereported" dateFormat="rfc3339" format="jsonf")
              property(outname="message" name="msg" format="jsonf")
              property(outname="program" name="programname" format="jsonf")
            }}
            {target(tcp, tcp_port, "tcp", "")}
            {target(tcp, tcp_port, "tcp", 'TCP_Framing="octet-counted"')}
            {target(udp, udp_port, "udp", "")}
            action(type="omelasticsearch" server="{es}" serverport="{es_port}" template="doc" searchIndex="rsyslog"
                   searchType="" bulkmode="on" action.resumeRetryCount="-1")
        """
        path = os.path.join(d, "rsyslog.conf")
        with open(path, "w") as f:
            f.write(config)
        out = open(os.path.join(d, "out"), "w+")
        daemon = subprocess.Popen(["rsyslogd", "-n", "-f", path, "-i", f"{d}/pid"], stdout=out, stderr=out)
        try:
            wait("rsyslog", lambda: os.path.exists(f"{d}/log"))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.connect(f"{d}/log")
                for n in range(3):
                    s.send(f"<11>Nov 23 10:00:0{n} payroll[77]: message {n}".encode())
            want = [f"message {n}" for n in range(3)]
            # Three ways lead to the same stream.
            got = found('{job="syslog",service_name="payroll"} | syslog_procid="77"', want * 3)
            assert got[0][0]["detected_level"] == "error", got
            found('{index="rsyslog"} | program="payroll"', [f" {w}" for w in want])
        except AssertionError:
            out.seek(0)
            print(out.read())
            raise
        finally:
            daemon.terminate()
            daemon.wait()


def raw_syslog():
    """Old and new headers, as devices send them."""
    host, port = ADDRESSES["syslog_tcp"].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b'<165>1 2026-01-01T00:00:00Z old router - ID7 [x@1 a="b"] late\n')
        s.sendall(b"<13>router: no time at all\n")
    found('{job="syslog",service_name="router"} |= "no time"', ["no time at all"])


def forward():
    """fluent-logger; then a chunk that comes twice because its acknowledgement was lost."""
    host, port = ADDRESSES["fluent"].rsplit(":", 1)
    logger = fluent.FluentSender("app", host=host, port=int(port), nanosecond_precision=True)
    for n in range(100):
        assert logger.emit("access", {"message": f"forwarded {n}", "code": 200 + n}), logger.last_error
    logger.close()
    found('{tag="app.access"}', [f"forwarded {n}" for n in range(100)])
    found('{tag="app.access"} | code="207"', ["forwarded 7"])
    entries = b"".join(msgpack.packb([int(time.time()), {"log": f"chunk {n}"}]) for n in range(5))
    for packed, option in ((entries, {}), (gzip.compress(entries), {"compressed": "gzip"})):
        name = "zip" if option else "plain"
        for _ in range(2):
            with socket.create_connection((host, int(port))) as s:
                s.sendall(msgpack.packb([name, packed, {"chunk": f"c-{name}", "size": 5, **option}]))
                assert msgpack.unpackb(s.recv(1000)) == {"ack": f"c-{name}"}
        found(f'{{tag="{name}"}}', [f"chunk {n}" for n in range(5)])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(b"\0", (host, int(port)))
        assert s.recv(10) == b"\0", "no heartbeat"


def loki():
    """python-logging-loki; the token is the password."""
    url = f"http://{ADDRESSES['http']}/loki/api/v1/push"
    log = logging.getLogger("to-loki")
    log.propagate = False
    log.addHandler(logging_loki.LokiHandler(url=url, tags={"app": "pyloki"}, auth=("anybody", TOKEN), version="1"))
    log.warning("pushed", extra={"tags": {"service": "x"}})
    found('{app="pyloki",service="x"}', ["pushed"])


def zipkin():
    start = int(time.time() * 1e6)
    trace = "5af7183fb1d4cf5f0000000000000001"
    spans = [
        {"traceId": trace, "id": "352bff9a74ca9ad2", "name": "get /", "kind": "SERVER", "timestamp": start,
         "duration": 207000, "localEndpoint": {"serviceName": "zip-front"}, "tags": {"http.method": "GET"}},
        {"traceId": trace, "parentId": "352bff9a74ca9ad2", "id": "e457b5a2e4d86bd1", "name": "query", "kind": "CLIENT",
         "timestamp": start, "duration": 1000, "localEndpoint": {"serviceName": "zip-front"},
         "remoteEndpoint": {"serviceName": "zip-db"}, "tags": {"error": "true"}},
    ]
    doors = [(f"http://{ADDRESSES['zipkin']}", {}), (f"http://{ADDRESSES['http']}/zipkin", BEARER)]
    for (url, headers), span in zip(doors, spans):
        kind = {"Content-Type": "application/json", "Content-Encoding": "gzip", **headers}
        body = gzip.compress(json.dumps([span]).encode())
        with urllib.request.urlopen(urllib.request.Request(f"{url}/api/v2/spans", body, kind)) as r:
            assert r.status == 202
    got = wait("both spans", lambda: [t for t in ask(f"/jaeger/api/traces/{trace}")["data"] if len(t["spans"]) == 2])
    assert {s["operationName"] for s in got[0]["spans"]} == {"get /", "query"}, got
    services = ask("/jaeger/api/services")["data"]
    assert "zip-front" in services, services
    try:
        bad = urllib.request.Request(f"{doors[0][0]}/api/v2/spans", b'[{"traceId":"x","id":"1"}]', {"Content-Type": "application/json"})
        urllib.request.urlopen(bad)
        raise AssertionError("a wrong span was taken")
    except urllib.error.HTTPError as e:
        assert e.code == 400 and b"span 0" in e.read()


for step in (opentelemetry, elasticsearch, rsyslog, raw_syslog, forward, loki, zipkin):
    try:
        step()
    except Exception as e:
        raise RuntimeError(step.__name__) from e
print("ok")
