/** A status in its colour; the word carries the meaning, the colour only repeats it. */

import type { Tone } from "../api/kubernetes";

export function Badge({ tone = "idle", bare, children }: { tone?: Tone; bare?: boolean; children: React.ReactNode }) {
  return <span className={`badge ${tone}${bare ? " bare" : ""}`}>{children}</span>;
}
