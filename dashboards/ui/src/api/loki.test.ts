import { expect, it } from "vitest";
import { flatten } from "./loki";

it("makes lines inert: no colour codes, and markup stays text", () => {
  const lines = flatten([
    { stream: { pod: "b" }, values: [["1700000000000000002", "\u001b[31mred\u001b[0m \u001b]0;title\u0007x"]] },
    { stream: { pod: "a" }, values: [["1700000000000000001", "<img src=x onerror=alert(1)>"], ["999", "old\u202etxt"]] },
  ]);
  expect(lines.map((l) => l.text)).toEqual(["old\uFFFDtxt", "<img src=x onerror=alert(1)>", "red x"]);
});
