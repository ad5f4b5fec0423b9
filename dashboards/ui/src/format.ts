/** Numbers, sizes and times as people read them. */

import { prefersUtc } from "./shell/preferences";

export type Unit = "cores" | "bytes" | "bytes/s" | "count" | "per second" | "seconds" | "percent" | "short";

function scaled(v: number, base: number, units: string[]): string {
  let i = 0;
  let x = Math.abs(v);
  while (x >= base && i < units.length - 1) {
    x /= base;
    i += 1;
  }
  const digits = x >= 100 || (i === 0 && Number.isInteger(x)) ? 0 : x >= 10 ? 1 : 2;
  return `${v < 0 ? "-" : ""}${Number(x.toFixed(digits))}${units[i]}`;
}

export function formatNumber(v: number): string {
  if (!Number.isFinite(v)) return Number.isNaN(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf";
  if (v !== 0 && Math.abs(v) < 0.001) return v.toExponential(1);
  if (Math.abs(v) < 1) return String(Number(v.toPrecision(2)));
  return scaled(v, 1000, ["", "k", "M", "G", "T", "P"]);
}

export function formatValue(v: number | null | undefined, unit: Unit): string {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  switch (unit) {
    case "cores":
      return Math.abs(v) < 1 ? `${Number((v * 1000).toFixed(v * 1000 < 10 ? 1 : 0))}m` : `${Number(v.toFixed(2))}`;
    case "bytes":
      return scaled(v, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]);
    case "bytes/s":
      return `${scaled(v, 1024, [" B", " KiB", " MiB", " GiB"])}/s`;
    case "per second":
      return `${formatNumber(v)}/s`;
    case "seconds":
      return formatDuration(v * 1000);
    case "percent":
      return `${Number(v.toFixed(1))}%`;
    default:
      return formatNumber(v);
  }
}

/** Of milliseconds. */
export function formatDuration(ms: number): string {
  if (ms < 1) return `${Number((ms * 1000).toFixed(0))} µs`;
  if (ms < 1000) return `${Number(ms.toFixed(ms < 10 ? 2 : 1))} ms`;
  const s = ms / 1000;
  if (s < 60) return `${Number(s.toFixed(2))} s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${Math.floor(s % 60)}s`;
  return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`;
}

/** As kubectl's AGE column. */
export function formatAge(then: string | number | undefined, now = Date.now()): string {
  if (then === undefined) return "–";
  const s = Math.max(0, Math.floor((now - (typeof then === "number" ? then : Date.parse(then))) / 1000));
  if (s < 120) return `${s}s`;
  if (s < 7200) return `${Math.floor(s / 60)}m`;
  if (s < 172800) return `${Math.floor(s / 3600)}h`;
  return `${Math.floor(s / 86400)}d`;
}

const zone = () => (prefersUtc() ? { timeZone: "UTC" } : {});

/** `14:03:05.123`, with the date if it is not `today`'s. */
export function formatTime(ms: number, options: { millis?: boolean; date?: boolean } = {}): string {
  const time = new Intl.DateTimeFormat("en-GB", {
    ...zone(),
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    ...(options.millis ? { fractionalSecondDigits: 3 as const } : {}),
    ...(options.date ? { year: "numeric", month: "short", day: "2-digit" } : {}),
  });
  return time.format(ms);
}

/** For chart axes, by the width of a step between ticks (seconds). */
export function formatTick(ms: number, step: number): string {
  const format: Intl.DateTimeFormatOptions =
    step >= 86400
      ? { day: "2-digit", month: "short" }
      : step >= 60
        ? { hour: "2-digit", minute: "2-digit" }
        : { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  return new Intl.DateTimeFormat("en-GB", { ...zone(), ...format }).format(ms);
}

/** Kubernetes quantities (`250m`, `64Mi`) as numbers. */
export function quantity(text: string | undefined): number {
  const m = /^([0-9.]+)([a-zA-Z]*)$/.exec(text ?? "");
  if (!m) return NaN;
  const scale: Record<string, number> = {
    "": 1, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3, Ti: 1024 ** 4,
  };
  return Number(m[1]) * (scale[m[2]!] ?? NaN);
}
