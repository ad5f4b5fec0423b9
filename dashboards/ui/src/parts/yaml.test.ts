import { expect, it } from "vitest";
import { objectYaml, toYaml } from "./yaml";

it("writes objects, lists in objects and objects in lists", () => {
  const pod = { kind: "Pod", metadata: { name: "a", labels: {}, managedFields: [1] }, spec: { containers: [{ name: "c", args: ["-x", "1"] }] } };
  expect(objectYaml(pod)).toBe(
    'kind: Pod\nmetadata:\n  name: a\n  labels: {}\nspec:\n  containers:\n  - name: c\n    args:\n    - "-x"\n    - "1"\n',
  );
});

it("quotes what would be read as something else", () => {
  expect(toYaml({ a: "true", b: "1.5", c: "x: y", d: "", e: true, f: "l1\nl2\n" })).toBe(
    '\na: "true"\nb: "1.5"\nc: "x: y"\nd: ""\ne: true\nf: |\n  l1\n  l2\n',
  );
});
