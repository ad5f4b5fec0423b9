"""Schemathesis: requests made from our own OpenAPI documents, right and wrong ones. None may be answered with a 5xx.

Deletions of whole collections are among them: the server is one of its own, without a node.
"""

import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

from structured_merge_diff import Api

# Requests that last, or go on to a node: there is none.
NOT_ASKED = re.compile(r"/(proxy|exec|attach|portforward|log)$")
# Requests of each operation.
EXAMPLES = 5


def documents(api, place):
    """The OpenAPI documents as files, without the parameter that makes a list last."""
    _, index = api("GET", "/openapi/v3")
    for name, entry in index["paths"].items():
        _, document = api("GET", entry["serverRelativeURL"])
        document["paths"] = {p: item for p, item in document["paths"].items() if not NOT_ASKED.search(p)}
        for item in document["paths"].values():
            for operation in item.values():
                if isinstance(operation, dict) and "parameters" in operation:
                    operation["parameters"] = [p for p in operation["parameters"] if p["name"] != "watch"]
        if document["paths"]:
            file = place / (name.replace("/", "_") + ".json")
            file.write_text(json.dumps(document))
            yield file


def run(env, packages, root):
    """Gives {name: passed or failed} and the log."""
    place = root / "openapi"
    place.mkdir()
    data = place / "data"
    report = root / "openapi.log"
    with open(report, "wb") as log:
        flags = [flag for f in ("api", "http", "otlp-grpc", "otlp-http") for flag in (f"--{f}-addr", "127.0.0.1:0")]
        server = subprocess.Popen([env["BINNACLE"], "server", "--data-dir", data, *flags], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 60
            while not (data / "addresses.json").exists():
                if server.poll() is not None or time.monotonic() > until:
                    return {}, report
                time.sleep(0.05)
            token = subprocess.run([env["BINNACLE"], "token", "create", "--data-dir", data], capture_output=True, text=True, check=True).stdout.strip()
            api = Api(data / "admin.kubeconfig", place)
            found = {}
            for document in documents(api, place):
                junit = document.with_suffix(".xml")
                command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", document, "--url", api.url,
                           "--tls-verify", "false", "--header", f"Authorization: Bearer {token}", "--checks", "not_a_server_error",
                           "--phases", "fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1", "--continue-on-failure", "--request-timeout", "20",
                           "--suppress-health-check", "all", "--warnings", "off", "--no-color", "--report", "junit", "--report-junit-path", junit]
                subprocess.run(command, cwd=place, env={**env, "PYTHONPATH": str(packages)}, stdout=log, stderr=log, timeout=1500)
                for case in xml.etree.ElementTree.parse(junit).iter("testcase"):
                    bad = case.find("failure") is not None or case.find("error") is not None
                    found[case.get("name")] = "failed" if bad else "passed"
            return found, report
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
