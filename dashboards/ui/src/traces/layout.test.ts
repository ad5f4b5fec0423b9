import { expect, it } from "vitest";
import { layout, type Span } from "./layout";

const span = (id: string, parent: string | null, start: number, end = start + 1): Span => ({
  id, parent, start, end, name: id, service: "s", kind: "internal", error: null, attributes: {}, resource: {}, events: [],
});
const shape = (spans: Span[], closed?: string[]) =>
  layout(spans, new Set(closed)).rows.map((r) => `${" ".repeat(r.depth)}${r.span.id}:${r.below}`);

it("goes depth first, siblings by time", () => {
  const spans = [span("c", "a", 5), span("a", null, 0, 10), span("b", "a", 1), span("d", "b", 2)];
  expect(shape(spans)).toEqual(["a:3", " b:1", "  d:0", " c:0"]);
  expect(shape(spans, ["b"])).toEqual(["a:3", " b:1", " c:0"]);
  expect(layout(spans)).toMatchObject({ start: 0, end: 10 });
});

it("shows spans of missing parents and of rings, each once", () => {
  expect(shape([span("x", "gone", 3), span("a", null, 0)])).toEqual(["a:0", "x:0"]);
  expect(shape([span("a", "b", 0), span("b", "a", 1)])).toEqual(["a:1", " b:0"]);
  expect(shape([span("a", "a", 0)])).toEqual(["a:0"]);
});

it("survives 20,000 levels", () => {
  const deep = Array.from({ length: 20_000 }, (_, i) => span(`s${i}`, i ? `s${i - 1}` : null, i));
  expect(layout(deep).rows[0]!.below).toBe(19_999);
});
