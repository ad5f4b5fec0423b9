import { expect, it } from "vitest";
import { fromWords, isLogQl, isMetric, withLabel } from "./query";

it("makes line filters of words, phrases and exclusions", () => {
  expect(fromWords("timeout -health \"bad gateway\"", '{namespace="shop"}')).toBe(
    '{namespace="shop"} |= "timeout" != "health" |= "bad gateway"',
  );
  expect(fromWords("")).toBe('{namespace=~".+"}');
  expect(fromWords('say"quote')).toBe('{namespace=~".+"} |= "say\\"quote"');
});

it("tells LogQL from words", () => {
  expect(isLogQl('{a="b"} |= "c"')).toBe(true);
  expect(isLogQl('sum by (x) (rate({a="b"}[1m]))')).toBe(true);
  expect(isLogQl("connection refused")).toBe(false);
  expect(isMetric('{a="b"}')).toBe(false);
  expect(isMetric('rate({a="b"}[1m])')).toBe(true);
  expect(withLabel('{a="b"}', "pod", "x", false)).toBe('{a="b"} | pod!="x"');
});
