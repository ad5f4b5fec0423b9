import { describe, expect, it } from "vitest";
import { grid, narrowed, parseTime, resolveRange } from "./range";

const NOW = 1_700_000_000_000;

describe("parseTime", () => {
  it.each([
    ["now", NOW],
    ["now-15m", NOW - 900_000],
    ["now-2d", NOW - 172_800_000],
    ["1700000000000", NOW],
    ["2023-11-14T22:13:20Z", NOW],
    ["now-", null],
    ["yesterday", null],
  ])("%s", (text, expected) => expect(parseTime(text, NOW)).toBe(expected));
});

describe("resolveRange", () => {
  it("falls back when nothing, nonsense or an empty range is given", () => {
    for (const [from, to] of [[null, null], ["x", null], ["now", "now-1h"]] as const) {
      expect(resolveRange(from, to, NOW)).toMatchObject({ from: "now-15m", to: "now", live: true });
    }
  });
  it("knows whether its end moves", () => {
    expect(resolveRange("now-1h", null, NOW).live).toBe(true);
    expect(resolveRange(String(NOW - 5000), String(NOW), NOW)).toMatchObject({ start: NOW - 5000, end: NOW, live: false });
  });
  it("reads what narrowed wrote", () => {
    const { from, to } = narrowed(NOW - 1.5, NOW - 9000.5);
    expect(resolveRange(from, to, NOW)).toMatchObject({ start: NOW - 9001, end: NOW - 1 });
    expect(narrowed(5, 5).to).toBe("1005");
  });
});

describe("grid", () => {
  it("keeps its points while the range moves within a step", () => {
    const a = grid({ start: NOW, end: NOW + 3_600_000 }, 240);
    const b = grid({ start: NOW + 4000, end: NOW + 3_604_000 }, 240);
    expect(a).toEqual(b);
    expect(a.step).toBe(15);
    expect(a.start % a.step).toBe(0);
  });
});
