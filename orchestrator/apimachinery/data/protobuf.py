#!/usr/bin/env python3
"""Makes protobuf-1.35.json.gz: the numbers and types of the fields of the API objects. See README.md.

Usage: protobuf.py PATH/api.git PATH/apimachinery.git TAG

Reads the field tags of the Go types at TAG (v0.35.0) of k8s.io/api and k8s.io/apimachinery.
"""
import gzip
import json
import pathlib
import re
import subprocess
import sys

from trim import ROOTS

META = "apimachinery.pkg.apis.meta.v1"
KNOWN = {
    "resource.Quantity": "q", "intstr.IntOrString": "o", META + ".Time": "t", META + ".MicroTime": "u",
    META + ".FieldsV1": "f", "runtime.RawExtension": "r",
}
BASIC = {"string": "s", "bool": "b", "int": "i", "int32": "i", "int64": "i", "float64": "d", "[]byte": "y"}


def show(git, tag, path):
    r = subprocess.run(["git", "-C", git, "show", f"{tag}:{path}"], capture_output=True, text=True)
    return r.stdout if r.returncode == 0 else ""


def files(git, tag, package):
    r = subprocess.run(["git", "-C", git, "ls-tree", "--name-only", tag, package + "/"], capture_output=True, text=True)
    return [f for f in r.stdout.split() if re.search(r"types.*\.go$", f) and "generated" not in f]


class Package:
    def __init__(self, name, text):
        self.name, self.structs, self.others = name, {}, {}
        self.imports = dict((a or p.rsplit("/", 1)[1], p) for a, p in re.findall(r'^\s*(\w+)?\s*"(k8s\.io/[^"]+)"', text, re.M))
        text = re.sub(r"//[^\n]*", "", text)
        for m in re.finditer(r"^type (\w+) struct \{(.*?)^\}", text, re.M | re.S):
            self.structs[m[1]] = m[2]
        for m in re.finditer(r"^type (\w+) (?:= )?([\w.\[\]]+)\s*$", text, re.M):
            self.others[m[1]] = m[2]


class World:
    def __init__(self, api, machinery, tag):
        self.git, self.tag, self.packages = (api, machinery), tag, {}

    def package(self, name):
        if name not in self.packages:
            if name.startswith("api."):
                git, path = self.git[0], name[4:].replace(".", "/")
            else:
                git, path = self.git[1], name.split(".", 1)[1].replace(".", "/")
            text = "\n".join(show(git, self.tag, f) for f in files(git, self.tag, path))
            self.packages[name] = Package(name, text)
        return self.packages[name]

    def resolve(self, package, go):
        """A Go type → (code, is it a pointer)."""
        if go.startswith("*"):
            return self.resolve(package, go[1:])[0], True
        if go in BASIC:
            return BASIC[go], False
        if go.startswith("[]"):
            return "[" + self.resolve(package, go[2:])[0], False
        m = re.match(r"map\[[^\]]+\](.*)", go)
        if m:
            return "{" + self.resolve(package, m[1])[0], False
        if go in KNOWN:
            return KNOWN[go], False
        if "." in go:
            alias, name = go.split(".")
            path = self.package(package).imports.get(alias, "")
            if path == "k8s.io/apimachinery/pkg/types":
                return "s", False
            return self.resolve(path.removeprefix("k8s.io/").replace("/", "."), name)
        full = f"{package}.{go}"
        if full in KNOWN:
            return KNOWN[full], False
        p = self.package(package)
        if go in p.structs:
            return "m" + full, False
        if go in p.others:
            target = p.others[go]
            # A named list is a message with one field.
            return ("m" + full, False) if target.startswith("[]") and target != "[]byte" else self.resolve(package, target)
        raise SystemExit(f"unknown type {go} in {package}")

    def fields(self, full):
        package, name = full.rsplit(".", 1)
        p = self.package(package)
        if name not in p.structs:
            return [[1, "", "[" + self.resolve(package, p.others[name][2:])[0]]]
        out = []
        for line in p.structs[name].splitlines():
            m = re.match(r'\s*(?:(\w+)\s+)?([\w.*\[\]]+)\s+`(.*)`', line)
            if not m:
                continue
            tags = dict(re.findall(r'(\w+):"([^"]*)"', m[3]))
            if "protobuf" not in tags or tags.get("json") == "-":
                continue
            number = int(tags["protobuf"].split(",")[1])
            json_name, *options = tags["json"].split(",")
            code, pointer = self.resolve(package, m[2])
            if "inline" in options:
                json_name = ""
            elif not pointer and ("omitempty" in options or "omitzero" in options) and code in "sbidy":
                code = code.upper()
            out.append([number, json_name, code])
        return sorted(out)


def main():
    world = World(*sys.argv[1:4])
    queue = [r.removeprefix("io.k8s.") for r in ROOTS if r.startswith("io.k8s.api.")]
    queue += [META + ".DeleteOptions", META + ".LabelSelector"]
    table = {}
    while queue:
        name = queue.pop()
        if name in table:
            continue
        table[name] = world.fields(name)
        queue.extend(m for _, _, code in table[name] for m in re.findall(r"m(\w+\..*)", code))
    text = json.dumps(table, separators=(",", ":"), sort_keys=True)
    out = pathlib.Path(__file__).with_name("protobuf-1.35.json.gz")
    with open(out, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, compresslevel=9, filename="") as g:
        g.write(text.encode())
    print(len(table), "messages,", len(text), "bytes,", out.stat().st_size, "compressed")


if __name__ == "__main__":
    main()
