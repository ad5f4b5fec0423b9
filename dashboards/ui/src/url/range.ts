/** Time ranges as they stand in the URL (`now-15m`, or milliseconds since the epoch) and as numbers. */

const UNITS: Record<string, number> = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3, w: 604800e3 };

/** Milliseconds, or null if the text is no time. */
export function parseTime(text: string, now: number): number | null {
  const relative = /^now(?:-(\d+)([smhdw]))?$/.exec(text);
  if (relative) return now - (relative[1] ? Number(relative[1]) * UNITS[relative[2]!]! : 0);
  if (/^\d{10,16}$/.test(text)) return Number(text);
  const parsed = Date.parse(text);
  return Number.isNaN(parsed) ? null : parsed;
}

export interface Range {
  /** As in the URL. */
  from: string;
  to: string;
  /** Milliseconds. */
  start: number;
  end: number;
  /** The end moves with the clock. */
  live: boolean;
}

export const DEFAULT_FROM = "now-15m";

/** What cannot be read falls back to the last 15 minutes: a broken link still shows something. */
export function resolveRange(from: string | null, to: string | null, now: number): Range {
  const start = from === null ? null : parseTime(from, now);
  const end = to === null ? now : parseTime(to, now);
  if (start === null || end === null || start >= end) {
    return { from: DEFAULT_FROM, to: "now", start: parseTime(DEFAULT_FROM, now)!, end: now, live: true };
  }
  const live = to === null || to.startsWith("now");
  return { from: from!, to: to ?? "now", start, end, live };
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];

export interface Grid {
  /** Seconds. `start` and `end` lie on multiples of `step`, so that a moving range keeps its points. */
  start: number;
  end: number;
  step: number;
}

export function grid(range: { start: number; end: number }, points: number): Grid {
  const raw = (range.end - range.start) / 1000 / points;
  const step = STEPS.find((s) => s >= raw) ?? Math.ceil(raw / 86400) * 86400;
  return {
    start: Math.floor(range.start / 1000 / step) * step,
    end: Math.floor(range.end / 1000 / step) * step,
    step,
  };
}

/** A part of a range as URL values; whole milliseconds, never empty. */
export function narrowed(start: number, end: number): { from: string; to: string } {
  const [a, b] = start < end ? [start, end] : [end, start];
  return { from: String(Math.floor(a)), to: String(Math.max(Math.ceil(b), Math.floor(a) + 1000)) };
}
