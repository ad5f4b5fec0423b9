import { expect, it } from "vitest";
import { isLogQl, isMetric, marks, ofPattern, selectorOf, withLabel } from "./query";

it("knows what to mark and where the selector ends", () => {
  expect(marks('{a="b"} |= "GET /x" |~ "(?i)time\\\\.out|slow" != "no" |~ "a+"')).toEqual(["GET /x", "time.out", "slow"]);
  expect(selectorOf('{a="}", b=`{`} |= "c"')).toBe('{a="}", b=`{`}');
  expect(ofPattern('{a="b"}', 'took "<_>" ms')).toBe('{a="b"} |> "took \\"<_>\\" ms"');
});

it("tells LogQL from words", () => {
  expect(isLogQl('{a="b"} |= "c"')).toBe(true);
  expect(isLogQl('sum by (x) (rate({a="b"}[1m]))')).toBe(true);
  expect(isLogQl("connection refused")).toBe(false);
  expect(isMetric('{a="b"}')).toBe(false);
  expect(isMetric('rate({a="b"}[1m])')).toBe(true);
  expect(withLabel('{a="b"}', "pod", "x", false)).toBe('{a="b"} | pod!="x"');
});
