import { expect, it } from "vitest";
import { kept, patched } from "./params";

it("changes, adds and removes, and leaves the rest", () => {
  expect(patched("?a=1&b=2", { a: null, c: '{x="y z"}' })).toBe("?b=2&c=%7Bx%3D%22y+z%22%7D");
  expect(patched("?a=1", { a: "" })).toBe("");
  expect(new URLSearchParams(patched("", { q: "a&b=c+d" })).get("q")).toBe("a&b=c+d");
});

it("keeps the time range between pages and nothing else", () => {
  expect(patched("", kept("?from=now-1h&q=up&to=now"))).toBe("?from=now-1h&to=now");
});
