"""An operator as people write them with kopf: it looks after a custom resource.

Usage: operator.py KUBECONFIG
"""
import base64
import json
import os
import ssl
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import kopf
import yaml

GROUP = "example.binnacle.io"
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"greetings.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "greetings", "singular": "greeting", "kind": "Greeting", "shortNames": ["gr"]},
        "versions": [{
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "required": ["to"], "properties": {
                    "to": {"type": "string", "minLength": 1},
                    "times": {"type": "integer", "minimum": 1, "default": 2},
                }, "x-kubernetes-validations": [{"rule": "self.times < 10", "message": "that is too often"}]},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            }}},
        }],
    },
}


class Cluster:
    def __init__(self, kubeconfig):
        config = yaml.safe_load(open(kubeconfig))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url = cluster["server"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=ca)
        with tempfile.NamedTemporaryFile() as pair:
            for part in ["client-certificate-data", "client-key-data"]:
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            self.context.load_cert_chain(pair.name)

    def call(self, method, path, body=None, media="application/json"):
        request = urllib.request.Request(self.url + path, method=method)
        data = None
        if body is not None:
            request.add_header("Content-Type", media)
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data=data, context=self.context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as e:
            return e.code, json.load(e)


def until(what, wish, seconds=60):
    end = time.monotonic() + seconds
    while not wish():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.05)


@kopf.on.login()
def login(**known):
    return kopf.login_with_kubeconfig(**known)


@kopf.on.create(GROUP, "v1", "greetings")
@kopf.on.update(GROUP, "v1", "greetings")
def greet(spec, name, namespace, patch, **_):
    text = " ".join([f"hello {spec['to']}"] * spec["times"])
    owned = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}
    kopf.adopt(owned)
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    if cluster.call("POST", path, owned)[0] == 409:
        cluster.call("PATCH", f"{path}/{name}", {"data": owned["data"]}, "application/merge-patch+json")
    patch.status["said"] = text
    return {"words": len(text.split())}


@kopf.on.delete(GROUP, "v1", "greetings")
def leave(name, **_):
    left.append(name)


def main():
    status, made = cluster.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    assert status == 201, made
    os.environ["KUBECONFIG"] = sys.argv[1]
    stop, ready = threading.Event(), threading.Event()
    operator = threading.Thread(
        target=lambda: kopf.run(standalone=True, namespaces=["default"], stop_flag=stop, ready_flag=ready), daemon=True)
    operator.start()
    assert ready.wait(30), "the operator did not start"
    greetings = f"/apis/{GROUP}/v1/namespaces/default/greetings"
    one = f"{greetings}/world"
    # The operator may know of the definition before anybody can write by it.
    new = {"apiVersion": f"{GROUP}/v1", "kind": "Greeting", "metadata": {"name": "world"}, "spec": {"to": "world"}}
    until("the definition", lambda: cluster.call("GET", greetings)[0] == 200)
    status, refused = cluster.call("POST", greetings, {**new, "spec": {"to": "world", "times": 10}})
    assert status == 422 and "that is too often" in refused["message"], refused
    status, made = cluster.call("POST", greetings, new)
    assert status == 201 and made["spec"]["times"] == 2, made
    said = lambda: cluster.call("GET", one)[1].get("status", {})
    until("the greeting", lambda: said().get("said") == "hello world hello world")
    until("its result", lambda: said().get("greet", {}).get("words") == 4)
    status, owned = cluster.call("GET", "/api/v1/namespaces/default/configmaps/world")
    assert status == 200 and owned["metadata"]["ownerReferences"][0]["kind"] == "Greeting", owned
    cluster.call("PATCH", one, {"spec": {"to": "sea", "times": 1}}, "application/merge-patch+json")
    until("the other greeting", lambda: said().get("said") == "hello sea")
    finalizers = cluster.call("GET", one)[1]["metadata"]["finalizers"]
    assert finalizers == ["kopf.zalando.org/KopfFinalizerMarker"], finalizers
    cluster.call("DELETE", one)
    until("the end", lambda: cluster.call("GET", one)[0] == 404)
    assert left == ["world"], left
    # What it owned is collected.
    until("the end of its own", lambda: cluster.call("GET", "/api/v1/namespaces/default/configmaps/world")[0] == 404)
    stop.set()
    operator.join(30)
    print("ok")


if __name__ == "__main__":
    left = []
    cluster = Cluster(sys.argv[1])
    main()
