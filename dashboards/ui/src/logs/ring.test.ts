import { expect, it } from "vitest";
import { LogRing, levelOf } from "./ring";

const line = (n: number) => ({ nanos: String(n), time: n, text: `line ${n}`, labels: {} });

it("keeps the newest lines in order and counts the others", () => {
  const ring = new LogRing(3);
  ring.push([line(1), line(2)]);
  expect(ring.toArray().map((l) => l.time)).toEqual([1, 2]);
  ring.push([line(3), line(4), line(5), line(6), line(7)], 9);
  expect(ring.toArray().map((l) => l.time)).toEqual([5, 6, 7]);
  expect(ring.evicted).toBe(4);
  expect(ring.dropped).toBe(9);
  expect(ring.at(3)).toBeUndefined();
  expect(ring.at(-1)).toBeUndefined();
  ring.clear();
  expect([ring.length, ring.evicted, ring.dropped]).toEqual([0, 0, 0]);
});

it("puts a late line in its place", () => {
  const ring = new LogRing(4);
  ring.push([line(1), line(5), line(9)]);
  ring.push([line(4), line(10), line(8)]);
  expect(ring.toArray().map((l) => l.time)).toEqual([5, 8, 9, 10]);
  expect(ring.evicted).toBe(2);
});

it("knows levels by their many names", () => {
  for (const [text, level] of [
    ["ERROR", "error"], ["Fatal", "error"], ["warning", "warn"], ["notice", "info"], ["TRACE", "debug"], ["", "unknown"],
  ] as const) {
    expect(levelOf(text)).toBe(level);
  }
});
