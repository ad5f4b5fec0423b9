/** The spans of a trace as a waterfall, drawn only as far as one sees, with the trace's log lines as dots. */

import { useVirtualizer } from "@tanstack/react-virtual";
import { useMemo, useRef, useState } from "react";
import { nameColor } from "../chart/colors";
import { formatDuration } from "../format";
import { lineLevel, type LogLine } from "../logs/ring";
import { layout, type Row, type Span } from "./layout";

interface Props {
  spans: Span[];
  logs?: LogLine[];
  selected: string | null;
  onSelect(id: string | null): void;
  height?: number;
}

const DOT: Record<string, string> = { error: "var(--bad)", warn: "var(--warn)" };

export function Waterfall({ spans, logs = [], selected, onSelect, height }: Props) {
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const { rows, start, end } = useMemo(() => layout(spans, closed), [spans, closed]);
  const bySpan = useMemo(() => Map.groupBy(logs.filter((l) => l.labels.span_id), (l) => l.labels.span_id!), [logs]);
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({ count: rows.length, getScrollElement: () => scroller.current, estimateSize: () => 26, overscan: 15 });
  const percent = (t: number) => Math.min(Math.max(((t - start) / (end - start)) * 100, 0), 100);
  const toggle = (id: string) =>
    setClosed((before) => {
      const next = new Set(before);
      if (!next.delete(id)) next.add(id);
      return next;
    });
  return (
    <div style={{ display: "flex", flexDirection: "column", minHeight: 0, flex: height ? undefined : 1 }}>
      <div className="wf-row" style={{ borderBottom: "1px solid var(--line-strong)", height: 24 }}>
        <span className="muted" style={{ padding: "2px 10px" }}>{spans.length} spans</span>
        <span className="wf-axis" style={{ padding: "3px 6px" }} aria-hidden="true">
          {[0, 0.25, 0.5, 0.75, 1].map((p) => <span key={p}>{formatDuration((end - start) * p)}</span>)}
        </span>
      </div>
      <div
        ref={scroller}
        className="scroller"
        style={height ? { height, flex: "none" } : undefined}
        tabIndex={0}
        role="group"
        aria-label="Spans of the trace"
        onKeyDown={(e) => {
          if (e.key !== "ArrowDown" && e.key !== "ArrowUp") return;
          const i = rows.findIndex((r) => r.span.id === selected);
          const next = Math.min(Math.max(i + (e.key === "ArrowDown" ? 1 : -1), 0), rows.length - 1);
          onSelect(rows[next]!.span.id);
          virtual.scrollToIndex(next);
          e.preventDefault();
        }}
      >
        <div className="virtual" style={{ height: virtual.getTotalSize() }}>
          {virtual.getVirtualItems().map((v) => (
            <SpanRow
              key={rows[v.index]!.span.id}
              row={rows[v.index]!}
              top={v.start}
              percent={percent}
              logs={bySpan.get(rows[v.index]!.span.id) ?? []}
              closed={closed.has(rows[v.index]!.span.id)}
              selected={rows[v.index]!.span.id === selected}
              onToggle={toggle}
              onSelect={onSelect}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

interface RowProps {
  row: Row;
  top: number;
  percent(t: number): number;
  logs: LogLine[];
  closed: boolean;
  selected: boolean;
  onToggle(id: string): void;
  onSelect(id: string | null): void;
}

function SpanRow({ row, top, percent, logs, closed, selected, onToggle, onSelect }: RowProps) {
  const { span, depth, below } = row;
  const from = percent(span.start);
  const to = percent(span.end);
  const color = span.error === null ? nameColor(span.service) : "var(--bad)";
  const label = `${span.service} ${span.name}, ${formatDuration(span.end - span.start)}${span.error === null ? "" : ", failed"}`;
  return (
    <div className="row wf-row" data-selected={selected} data-span={span.id} style={{ top }}>
      <span className="wf-name" style={{ paddingLeft: 6 + Math.min(depth, 24) * 13 }}>
        {below > 0 ? (
          <button type="button" className="tree-button" aria-label={`${closed ? "Open" : "Close"} ${below} spans below`} aria-expanded={!closed} onClick={() => onToggle(span.id)}>{closed ? `▸ ${below}` : "▾"}</button>
        ) : (
          <span style={{ width: 24, flex: "none" }} />
        )}
        <i className="swatch" style={{ background: color }} />
        <button type="button" className="label" title={label} onClick={() => onSelect(selected ? null : span.id)}>
          <b style={{ fontWeight: 550 }}>{span.service}</b> {span.name}
        </button>
      </span>
      <div className="wf-lane" aria-hidden="true" onClick={() => onSelect(selected ? null : span.id)}>
        <span className="bar-of" style={{ left: `${from}%`, width: `${to - from}%`, background: color }} />
        {logs.map((l) => (
          <span key={`${l.nanos}${l.text}`} className="point" title={l.text} style={{ left: `${percent(l.time)}%`, background: DOT[lineLevel(l)] ?? "var(--text)" }} />
        ))}
        <span className="took" style={to > 78 ? { right: `${100 - from}%` } : { left: `${to}%` }}>{formatDuration(span.end - span.start)}</span>
      </div>
    </div>
  );
}

export function SpanDetail({ span }: { span: Span }) {
  const groups: [string, Record<string, string>][] = [["Attributes", span.attributes], ["Resource", span.resource]];
  return (
    <div style={{ display: "grid", gap: 10 }}>
      {span.error !== null && <div className="notice bad">{span.error || "failed"}</div>}
      <dl className="pairs">
        <dt>Service</dt><dd>{span.service}</dd>
        <dt>Kind</dt><dd>{span.kind}</dd>
        <dt>Took</dt><dd>{formatDuration(span.end - span.start)}</dd>
        <dt>Span</dt><dd className="mono">{span.id}</dd>
      </dl>
      {span.events.length > 0 && (
        <div>
          <h3>Events</h3>
          <dl className="pairs">
            {span.events.map((e, i) => (
              <div key={i} style={{ display: "contents" }}>
                <dt>+{formatDuration(e.time - span.start)}</dt>
                <dd>{e.name} <span className="muted">{Object.entries(e.attributes).map(([k, v]) => `${k}=${v}`).join(" ")}</span></dd>
              </div>
            ))}
          </dl>
        </div>
      )}
      {groups.map(([name, values]) => Object.keys(values).length > 0 && (
        <div key={name}>
          <h3>{name}</h3>
          <dl className="pairs mono">
            {Object.entries(values).sort(([a], [b]) => a.localeCompare(b)).map(([k, v]) => (
              <div key={k} style={{ display: "contents" }}><dt>{k}</dt><dd>{v}</dd></div>
            ))}
          </dl>
        </div>
      ))}
    </div>
  );
}
