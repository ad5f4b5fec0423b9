"""The OpenTelemetry SDK for Python sends to each OTLP door, in both temporalities; the API must then tell the same totals.

Usage: otlp.py HTTP_ADDRESS OTLP_GRPC OTLP_HTTP TOKEN
"""

import json
import sys
import time
import urllib.parse
import urllib.request

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

API, GRPC, HTTP, TOKEN = sys.argv[1:]


def query(expr):
    url = f"http://{API}/api/v1/query?" + urllib.parse.urlencode({"query": expr})
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request) as r:
        return json.load(r)["data"]["result"]


def value(expr):
    deadline = time.monotonic() + 20
    while True:
        got = query(expr)
        if got or time.monotonic() > deadline:
            return [float(s["value"][1]) if "value" in s else s["histogram"][1] for s in got]
        time.sleep(0.05)


def check(expr, want):
    got = value(expr)
    assert got == want, f"{expr}: {got}, not {want}"


def main():
    kinds = (Counter, Histogram, UpDownCounter)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for name, temporality in (("delta", AggregationTemporality.DELTA), ("total", AggregationTemporality.CUMULATIVE)):
        preferred = {kind: temporality for kind in kinds}
        doors = {
            "grpc": Grpc(endpoint=f"http://{GRPC}", insecure=True, preferred_temporality=preferred),
            "http": Http(endpoint=f"http://{HTTP}/v1/metrics", preferred_temporality=preferred),
            "api": Http(
                endpoint=f"http://{API}/api/v1/otlp/v1/metrics", headers=headers, preferred_temporality=preferred
            ),
        }
        for door, exporter in doors.items():
            job = f"{name}-{door}"
            resource = Resource.create({"service.name": job, "service.instance.id": "i", "host.arch": "x"})
            # Only what is flushed is sent.
            reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
            view = View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())
            provider = MeterProvider(metric_readers=[reader], resource=resource, views=[view])
            meter = provider.get_meter("test")
            jobs = meter.create_counter("jobs.done", unit="1")
            open_ = meter.create_up_down_counter("connections.open")
            took = meter.create_histogram("request.duration", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
            size = meter.create_histogram("size", unit="By")
            for n in (2, 3):
                jobs.add(n, {"kind": "a"})
                open_.add(1 - 2 * (n == 3))
                took.record(0.05 * n)
                size.record(100 * n)
                assert provider.force_flush(), f"{job}: not sent"
            sel = f'{{job="{job}",instance="i"}}'
            check("jobs_done_total" + sel, [5.0])
            check("connections_open" + sel, [0.0])
            check("request_duration_seconds_count" + sel, [2.0])
            check("request_duration_seconds_sum" + sel, [0.25])
            check(f'request_duration_seconds_bucket{{job="{job}",le="0.1"}}', [1.0])
            check("histogram_count(size_bytes" + sel + ")", [2.0])
            check("histogram_sum(size_bytes" + sel + ")", [500.0])
            check(f'target_info{{job="{job}",host_arch="x"}}', [1.0])
            provider.shutdown()
    print("ok")


main()
