/** The volume of logs over time, stacked by level; on the page's time axis. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { volume } from "../api/loki";
import { formatNumber, formatTime } from "../format";
import { levelOf, type Level } from "../logs/ring";
import { Failure } from "../parts/states";
import { grid } from "../url/range";
import { Lane } from "./lane";

const ORDER: Level[] = ["error", "warn", "unknown", "debug", "info"];
const COLOR: Record<Level, string> = {
  error: "var(--bad)", warn: "var(--warn)", info: "var(--s0)", debug: "var(--s7)", unknown: "var(--line-strong)",
};

interface Props {
  query: string;
  range: { start: number; end: number };
  height?: number;
  onBrush(start: number, end: number): void;
}

export function LogVolume({ query, range, height = 56, onBrush }: Props) {
  const g = grid(range, 90);
  const { data, error } = useQuery({
    queryKey: ["volume", query, g.start, g.end, g.step],
    queryFn: ({ signal }) => volume(query, g.start, g.end + g.step, g.step, signal),
    placeholderData: keepPreviousData,
    // A query that is not known yet is empty.
    enabled: query !== "",
  });
  if (error) return <Failure error={error} />;
  const buckets = new Map<number, Partial<Record<Level, number>>>();
  let total = 0;
  for (const s of data ?? []) {
    const level = levelOf(s.labels.detected_level);
    s.times.forEach((t, i) => {
      const bucket = buckets.get(t) ?? {};
      bucket[level] = (bucket[level] ?? 0) + s.values[i]!;
      total += s.values[i]!;
      buckets.set(t, bucket);
    });
  }
  const sum = (b: Partial<Record<Level, number>>) => ORDER.reduce((n, l) => n + (b[l] ?? 0), 0);
  const top = Math.max(1, ...[...buckets.values()].map(sum));
  const width = range.end - range.start;
  return (
    <Lane range={range} height={height} label={`Volume of logs: ${total} lines`} onBrush={onBrush}>
      <svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">
        {[...buckets].map(([t, bucket]) => {
          // A bucket counts the step that ends at its time.
          const x = (((t - g.step) * 1000 - range.start) / width) * 1000;
          const w = Math.max(((g.step * 1000) / width) * 1000 - 1.5, 1);
          let y = 100;
          return ORDER.map((level) => {
            const h = ((bucket[level] ?? 0) / top) * 96;
            if (h === 0) return null;
            y -= h;
            return <rect key={`${t}${level}`} x={x} y={y} width={w} height={h} fill={COLOR[level]}><title>{`${formatTime(t * 1000)} ${level}: ${bucket[level]}`}</title></rect>;
          });
        })}
      </svg>
      <span className="muted" style={{ position: "absolute", left: -60, top: 0, fontSize: 11 }}>{data ? formatNumber(top) : "…"}</span>
      <span className="muted" style={{ position: "absolute", left: -60, bottom: 0, fontSize: 11 }}>lines</span>
    </Lane>
  );
}
