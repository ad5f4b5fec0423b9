/** A time chart: uPlot with the page's range, cursor and brush. Its left and right edges are those of every lane. */

import { useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { formatTick, formatTime, formatValue, type Unit } from "../format";
import { usePreferences } from "../shell/preferences";
import { computed, seriesColor } from "./colors";
import { onPoint, point } from "./cursor";

export const LEFT = 64;
export const RIGHT = 24;

export interface Line {
  name: string;
  times: number[];
  values: number[];
  color?: string;
  dash?: boolean;
  /** Counts of replicas change at a moment, they do not glide. */
  stepped?: boolean;
}

interface Props {
  title: string;
  lines: Line[];
  unit: Unit;
  /** Milliseconds. */
  range: { start: number; end: number };
  /** Seconds between points: a longer gap is drawn as one. */
  step: number;
  height?: number;
  /** Stands before the legend, which then is above the chart. */
  heading?: ReactNode;
  /** Stands at the end of such a legend. */
  trailing?: ReactNode;
  onBrush?(start: number, end: number): void;
}

/** Steps between ticks that are whole KiB, MiB, …. */
const BINARY = Array.from({ length: 48 }, (_, i) => 2 ** i);

/** All lines on one axis of times; what a line does not have is a gap. */
function aligned(lines: Line[], step: number, start: number, end: number): uPlot.AlignedData {
  const all = new Set<number>();
  for (const line of lines) for (const t of line.times) all.add(t);
  // Where no line has a point for two steps there is a gap, and uPlot needs a place to draw it.
  const sorted = [...all].sort((a, b) => a - b);
  for (let i = 1; i < sorted.length; i++) if (sorted[i]! - sorted[i - 1]! > step * 2.5) all.add(sorted[i - 1]! + step);
  const times = all.size > 0 ? [...all].sort((a, b) => a - b) : [start / 1000, end / 1000];
  const columns = lines.map((line) => {
    const at = new Map(line.times.map((t, i) => [t, line.values[i]!]));
    return times.map((t) => {
      const v = at.get(t);
      return v === undefined || !Number.isFinite(v) ? null : v;
    });
  });
  return [times, ...columns];
}

export function Chart({ title, lines, unit, range, step, height = 150, heading, trailing, onBrush }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const brush = useRef(onBrush);
  const shown = useRef(range);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [index, setIndex] = useState<number | null>(null);
  const preferences = usePreferences();
  useEffect(() => {
    brush.current = onBrush;
    shown.current = range;
  });
  const data = useMemo(() => aligned(lines, step, range.start, range.end), [lines, step, range.start, range.end]);
  const names = lines.map((l) => l.name).join("\n");

  // A new chart only for new lines, theme or size; new data and ranges go into the one there is.
  useEffect(() => {
    const element = host.current!;
    const text = computed("var(--muted)");
    const gridLine = computed("var(--line)");
    const axis = { stroke: text, grid: { stroke: gridLine, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const options: uPlot.Options = {
      width: Math.max(element.clientWidth, 100),
      height,
      padding: [8, RIGHT, 0, 0],
      legend: { show: false },
      cursor: { points: { size: 6 }, drag: { x: true, y: false, setScale: false }, y: false, focus: { prox: -1 } },
      scales: {
        x: { time: true, range: () => [shown.current.start / 1000, shown.current.end / 1000] },
        y: { range: (_u, min, max) => {
          // From zero, as rates and sizes are; a flat zero still gets a height.
          const top = max === null || max <= 0 ? (min !== null && min < 0 ? 0 : 1) : max * 1.08;
          return [Math.min(0, min ?? 0), top];
        } },
      },
      axes: [
        { ...axis, space: 70, size: 26, values: (_u, ticks) => ticks.map((t) => formatTick(t * 1000, (ticks[1] ?? t + 60) - (ticks[0] ?? t))) },
        { ...axis, size: LEFT, space: 26, ...(unit.startsWith("bytes") ? { incrs: BINARY } : {}), values: (_u, ticks) => ticks.map((t) => formatValue(t, unit)) },
      ],
      series: [
        {},
        ...lines.map((line, i) => ({
          label: line.name,
          stroke: computed(line.color ?? seriesColor(i)),
          width: 1.5,
          points: { show: line.times.length === 1 },
          ...(line.dash ? { dash: [5, 4] } : {}),
          ...(line.stepped ? { paths: uPlot.paths.stepped!({ align: 1 }) } : {}),
        })),
      ],
      hooks: {
        setCursor: [
          (u) => {
            setIndex(u.cursor.idx ?? null);
            // Without an event the cursor was moved by us, from another chart.
            if (u.cursor.event) point((u.cursor.left ?? -1) >= 0 ? u.posToVal(u.cursor.left!, "x") * 1000 : null, u);
          },
        ],
        setSelect: [
          (u) => {
            if (u.select.width > 4) {
              brush.current?.(u.posToVal(u.select.left, "x") * 1000, u.posToVal(u.select.left + u.select.width, "x") * 1000);
            }
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
      },
    };
    const u = new uPlot(options, data, element);
    plot.current = u;
    u.over.addEventListener("mouseleave", () => point(null, u));
    const off = onPoint((time, source) => {
      if (source === u) return;
      u.setCursor({ left: time === null ? -10 : u.valToPos(time / 1000, "x"), top: time === null ? -10 : 10 }, true);
    });
    const resize = new ResizeObserver(() => {
      if (element.clientWidth > 0 && element.clientWidth !== u.width) u.setSize({ width: element.clientWidth, height });
    });
    resize.observe(element);
    return () => {
      off();
      resize.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [names, height, unit, preferences]);

  useEffect(() => plot.current?.setData(data), [data]);
  useEffect(() => {
    lines.forEach((line, i) => plot.current?.setSeries(i + 1, { show: !hidden.has(line.name) }));
  }, [hidden, names, preferences]);

  const toggle = (name: string) =>
    setHidden((before) => {
      const next = new Set(before);
      if (!next.delete(name)) next.add(name);
      return next;
    });
  const at = index === null ? undefined : data[0][index];
  const legend = (
    <div className={heading ? "legend above" : "legend"} role="group" aria-label={`Lines of ${title}`}>
      {heading}
      {lines.map((line, i) => (
        <button key={line.name} type="button" aria-pressed={!hidden.has(line.name)} onClick={() => toggle(line.name)}>
          <i style={{ background: line.color ?? seriesColor(i) }} />
          <span className="name cut">{line.name}</span>
          <b>{formatValue(index === null ? line.values.at(-1) : (data[i + 1] as (number | null)[])[index], unit)}</b>
        </button>
      ))}
      {at !== undefined && <span className="muted nowrap" style={{ lineHeight: "24px" }}>at {formatTime(at * 1000)}</span>}
      {trailing && <span className="spring" />}
      {trailing}
    </div>
  );
  return (
    <div className="chart">
      {heading && legend}
      <div ref={host} role="img" aria-label={`${title}: ${lines.length} lines over time`} style={{ height }} />
      {!heading && legend}
    </div>
  );
}
