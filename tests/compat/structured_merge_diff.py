"""The corpus of sigs.k8s.io/structured-merge-diff, from Debian's package of its sources, played against the API server.

Its test tables are Go literals: a schema, operations (apply, forced apply, update) by managers in versions, and the object
and the managers' fields that come of them. Each becomes a custom resource with that schema under `spec`, and the operations
become requests. What is left out, and why, is in SKIPPED.
"""

import base64
import json
import pathlib
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

PACKAGE = "golang-k8s-sigs-structured-merge-diff-dev"
FILES = ["deduced", "default_keys", "key", "leaf", "multiple_appliers", "nested", "preserve_unknown", "set"]
SKIPPED = {
    "TestMultipleAppliersFieldUnsetting": "versions with converters in Go",
    "TestMultipleAppliersRealConversion": "versions with converters in Go",
    "TestMultipleAppliersFieldRenameConversions": "versions with converters in Go",
}
# A recursive type has no structural schema: so deep it is written out.
DEEP = 6
TOKEN = re.compile(r'\s+|//[^\n]*|/\*.*?\*/|(`[^`]*`|"(?:\\.|[^"\\])*"|[A-Za-z_]\w*|-?\d+(?:\.\d+)?|:=|[-+&|<>=!]+|.)', re.S)


class Call:
    def __init__(self, name, args):
        self.name, self.args = name, args


class Go:
    """Expressions of Go, as far as tables of tests need them. Composites become dicts, lists or (type, dict)."""

    def __init__(self, text):
        self.tokens = [t for t in TOKEN.findall(text) if t]
        self.at = 0

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, token):
        got = self.next()
        if got != token:
            raise ValueError(f"{got!r} where {token!r} is due")

    def expression(self):
        t = self.next()
        if t == "&":
            return self.expression()
        if t.startswith("`"):
            return t[1:-1]
        if t.startswith('"'):
            return json.loads(t)
        if re.match(r"-?\d", t):
            return float(t) if "." in t else int(t)
        if t == "{":
            self.at -= 1
            return self.composite("")
        if t == "[":
            # A slice's or an array's type.
            while self.next() != "]":
                pass
            name = self.name(self.next())
            return self.composite("[]" + name)
        if t == "map":
            self.expect("[")
            self.expression()
            self.expect("]")
            return self.composite("map " + self.name(self.next()))
        name = self.name(t)
        if self.peek() == "{":
            return self.composite(name)
        if self.peek() == "(":
            self.next()
            args = []
            while self.peek() != ")":
                args.append(self.expression())
                if self.peek() == ",":
                    self.next()
            self.next()
            return Call(name, args)
        return {"true": True, "false": False, "nil": None}.get(name, Call(name, None))

    def name(self, first):
        while self.peek() == ".":
            self.next()
            first += "." + self.next()
        return first

    def composite(self, kind):
        self.expect("{")
        items, fields = [], {}
        while self.peek() != "}":
            key = self.expression()
            if self.peek() == ":":
                self.next()
                fields[key.name if isinstance(key, Call) else key] = self.expression()
            else:
                items.append(key)
            if self.peek() == ",":
                self.next()
        self.next()
        return items if items else (kind, fields)


def text(value):
    if isinstance(value, Call) and value.name in ("typed.YAMLObject", "YAMLObject"):
        return text(value.args[0])
    if not isinstance(value, str):
        raise NotImplementedError("an object that is made by code")
    lines = value.split("\n")
    lines = lines[1:] if lines and not lines[0].strip() else lines
    tabs = len(lines[0]) - len(lines[0].lstrip("\t")) if lines else 0
    return "\n".join(line[tabs:] for line in lines)


def tables(source):
    """(function, parser's name, whether its cases are to be refused, {test: case})"""
    for m in re.finditer(r"^func (Test\w+)\(t \*testing\.T\) \{\n(.*?)^\}", source, re.S | re.M):
        body = m[2]
        table = re.search(r"tests := (map\[string\]TestCase\{)", body)
        if not table:
            continue
        run = re.search(r"test\.Test\w*\((\w+)[^)]*\)( == nil)?", body)
        yield m[1], run[1], run[2] is not None, Go(body[table.start(1):]).expression()[1]


def schemas(source):
    """{parser's name: (types, root)}"""
    found = {}
    for m in re.finditer(r"^var (\w+) = func\(\) \*?(?:typed\.)?Parser \{(.*?)^\}\(\)", source, re.S | re.M):
        types = yaml.safe_load(re.search(r"typed\.NewParser\(`(.*?)`\)", m[2], re.S)[1])["types"]
        root = re.search(r'Type\("(\w+)"\)', m[2])
        # Without a root it is the type with the version's name.
        found[m[1]] = ({t["name"]: t for t in types}, root[1] if root else "v1")
    return found


def structural(types, ref, deep=0):
    """A schema of structured-merge-diff, where everything may be null, as a structural one."""
    return {**schema_of(types, ref, deep), **({"nullable": True} if deep else {})}


def schema_of(types, ref, deep):
    if deep > DEEP:
        return {"x-kubernetes-preserve-unknown-fields": True}
    relationship = ref.get("elementRelationship")
    while "namedType" in ref:
        if ref["namedType"].startswith("__untyped"):
            return {"x-kubernetes-preserve-unknown-fields": True}
        ref = types[ref["namedType"]]
    if "scalar" in ref:
        kind = {"string": "string", "boolean": "boolean", "number": "number", "numeric": "number"}.get(ref["scalar"])
        return {"type": kind} if kind else {"x-kubernetes-preserve-unknown-fields": True}
    if "list" in ref:
        of = ref["list"]
        out = {"type": "array", "items": schema_of(types, of["elementType"], deep + 1)}
        how = relationship or of.get("elementRelationship")
        if how != "associative":
            return {**out, "x-kubernetes-list-type": "atomic"}
        if not of.get("keys"):
            return {**out, "x-kubernetes-list-type": "set"}
        keys = of["keys"]
        for k in keys:
            out["items"]["properties"][k].pop("nullable", None)
        defaults = [k for k in keys if "default" in out["items"]["properties"][k]]
        out["items"]["required"] = [k for k in keys if k not in defaults]
        return {**out, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
    if "map" in ref:
        of = ref["map"]
        out = {"type": "object"}
        if (relationship or of.get("elementRelationship")) == "atomic":
            out["x-kubernetes-map-type"] = "atomic"
        if of.get("fields"):
            if of.get("elementType"):
                raise NotImplementedError("a struct that takes other fields, too")
            out["properties"] = {}
            for f in of["fields"]:
                out["properties"][f["name"]] = structural(types, f["type"], deep + 1)
                if "default" in f:
                    out["properties"][f["name"]]["default"] = f["default"]
        elif of.get("elementType"):
            out["additionalProperties"] = structural(types, of["elementType"], deep + 1)
        return out
    return {"x-kubernetes-preserve-unknown-fields": True}


def element(e):
    """A path's element as (key of FieldsV1, text of a conflict)."""
    if isinstance(e, str):
        return "f:" + e, "." + e
    if isinstance(e, int):
        return f"i:{e}", f"[{e}]"
    short = e.name.split(".")[-1]
    if short in ("_V", "NewValueInterface"):
        v = json.dumps(e.args[0])
        return "v:" + v, f"[={v}]"
    if short in ("_KBF", "KeyByFields"):
        fields = sorted(zip(e.args[::2], e.args[1::2]))
        fields = [(k, v.args[0] if isinstance(v, Call) else v) for k, v in fields]
        inner = ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in fields)
        return "k:{" + inner + "}", "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in fields) + "]"
    raise NotImplementedError(f"a path of {e.name}")


def fields_v1(paths):
    out = {}
    for p in paths:
        node = out
        for e in ["spec", *p.args]:
            node = node.setdefault(element(e)[0], {})
        node["."] = {}

    def tidy(node):
        inner = {k: tidy(v) for k, v in node.items() if k != "."}
        return {".": {}, **inner} if inner and "." in node else inner

    return tidy(out)


class Api:
    def __init__(self, kubeconfig, root):
        config = yaml.safe_load(pathlib.Path(kubeconfig).read_text())
        self.url = config["clusters"][0]["cluster"]["server"]
        user = config["users"][0]["user"]
        self.tls = ssl.create_default_context(cadata=base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode())
        if "client-certificate-data" in user:
            pair = root / "client.pem"
            pair.write_bytes(b"".join(base64.b64decode(user[k]) for k in ("client-certificate-data", "client-key-data")))
            self.tls.load_cert_chain(pair)
        self.token = user.get("token")

    def __call__(self, method, path, body=None, content="application/json"):
        headers = {"Content-Type": content, **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as r:
                return r.status, json.load(r)
        except urllib.error.HTTPError as e:
            return e.code, json.load(e)


VERSIONS = ["v1", "v2", "v3", "v4"]


def define(api, plural, schema):
    kind = plural.capitalize()
    whole = {"type": "object", "properties": {"spec": schema}}
    versions = [{"name": v, "served": True, "storage": v == "v1", "schema": {"openAPIV3Schema": whole}} for v in VERSIONS]
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.smd.example.com"},
           "spec": {"group": "smd.example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind, "singular": plural},
                    "versions": versions}}
    code, answer = api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    if code != 201:
        raise ValueError(f"the CRD is refused: {answer.get('message')}")
    until = time.monotonic() + 30
    while api("GET", f"/apis/smd.example.com/v1/{plural}")[0] != 200:
        if time.monotonic() > until:
            raise ValueError("the CRD is not served")
        time.sleep(0.05)


class Wrong(Exception):
    pass


def same(a, b):
    """Null is absent; the corpus' version of the library does not care for the order of an associative list."""
    if isinstance(a, dict) and isinstance(b, dict):
        a, b = ({k: v for k, v in o.items() if v not in (None, {})} for o in (a, b))
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        order = lambda l: sorted(l, key=lambda e: json.dumps(e, sort_keys=True))
        return len(a) == len(b) and all(map(same, order(a), order(b)))
    return a == b


def play(api, plural, name, case, defaults):
    """`defaults`: its schema has some, which stored objects get and the tables' do not."""
    collection = lambda v: f"/apis/smd.example.com/{v}/namespaces/default/{plural}"
    live = None
    for op, f in case["Ops"]:
        version = f.get("APIVersion", "v1")
        body = {"apiVersion": f"smd.example.com/{version}", "kind": plural.capitalize(), "metadata": {"name": name},
                "spec": yaml.safe_load(text(f["Object"])) or {}}
        by = "?" + urllib.parse.urlencode({"fieldManager": f["Manager"], **({"force": "true"} if op == "ForceApply" else {})})
        if op in ("Apply", "ForceApply"):
            code, answer = api("PATCH", f"{collection(version)}/{name}{by}", body, "application/apply-patch+yaml")
            conflicts = f.get("Conflicts")
            conflicts = conflicts if isinstance(conflicts, list) else []
            if conflicts:
                want = {(c["Manager"], ".spec" + "".join(element(e)[1] for e in c["Path"].args)) for _, c in conflicts}
                got = {(re.search(r'conflict with "([^"]*)"', c["message"])[1], c["field"]) for c in answer.get("details", {}).get("causes", [])}
                if code != 409 or got != want:
                    raise Wrong(f"{code}, conflicts {sorted(got)} where {sorted(want)} are due")
                continue
        elif op == "Update":
            if live is None:
                code, answer = api("POST", collection(version) + by, body)
            else:
                body["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
                code, answer = api("PUT", f"{collection(version)}/{name}{by}", body)
        else:
            raise NotImplementedError(op)
        if code not in (200, 201):
            raise Wrong(f"{op} by {f['Manager']}: {code} {answer.get('message')}")
        live = answer
    version = case.get("APIVersion", "v1")
    _, answer = api("GET", f"{collection(version)}/{name}")
    if "Object" in case and not defaults:
        want = yaml.safe_load(text(case["Object"])) or {}
        if not same(answer.get("spec") or {}, want):
            raise Wrong(f"the object is {json.dumps(answer.get('spec'))} where {json.dumps(want)} is due")
    managed = case.get("Managed")
    if managed:
        want = {}
        for manager, s in managed[1].items():
            # We keep all fields in the storage version's form, and say so.
            paths, _, _ = s.args
            want[manager] = fields_v1(paths.args or [])
        got = {m["manager"]: m["fieldsV1"] for m in answer["metadata"].get("managedFields", [])}
        # A spec without fields is a field itself.
        got, want = ({m: f for m, f in all.items() if f and f != {"f:spec": {}}} for all in (got, want))
        if got != want:
            raise Wrong(f"managers are {json.dumps(got, sort_keys=True)} where {json.dumps(want, sort_keys=True)} are due")


def run(env, packages, root):
    """Gives {name: passed, failed or skipped} and the log."""
    place = root / "structured-merge-diff"
    place.mkdir()
    subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", PACKAGE], cwd=place, check=True)
    subprocess.run(["dpkg", "-x", next(place.glob("*.deb")), place / "x"], check=True)
    merge = next(place.glob("x/usr/share/gocode/src/sigs.k8s.io/structured-merge-diff*")) / "merge"
    sources = {f: (merge / f"{f}_test.go").read_text() for f in FILES}
    known = {name: s for source in sources.values() for name, s in schemas(source).items()}
    api = Api(env["KUBECONFIG"], root)
    found, report = {}, root / "structured-merge-diff.log"
    defined = {}
    with open(report, "w") as log:
        for file, source in sources.items():
            for function, parser, refused, cases in tables(source):
                for number, (name, (_, case)) in enumerate(sorted(cases.items())):
                    test = f"{file}/{function}/{name}"
                    if function in SKIPPED:
                        found[test] = "skipped"
                        continue
                    try:
                        if parser not in defined:
                            if parser == "DeducedParser":
                                schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                            else:
                                types, top = known[parser]
                                schema = structural(types, {"namedType": top})
                            define(api, parser.lower(), schema)
                            defined[parser] = parser.lower()
                        try:
                            play(api, defined[parser], f"{function.lower()}-{number}", case, file == "default_keys")
                        except Wrong:
                            if not refused:
                                raise
                        else:
                            if refused:
                                raise Wrong("nothing is refused")
                        found[test] = "passed"
                    except NotImplementedError as e:
                        found[test] = "skipped"
                        print(f"SKIPPED {test}: {e}", file=log)
                    except (Wrong, ValueError) as e:
                        found[test] = "failed"
                        print(f"FAILED {test}: {e}", file=log)
    return found, report
