/** One trace: its waterfall, a span's details, and the lines that were logged within it. */

import { useMemo } from "react";
import { Link } from "wouter";
import { useLogs } from "../api/loki";
import { useTrace } from "../api/tempo";
import { formatDuration, formatTime } from "../format";
import { LogList } from "../logs/list";
import { ofTrace } from "../logs/query";
import { Badge } from "../parts/badge";
import { Empty, Loaded, Loading } from "../parts/states";
import { Page } from "../shell/page";
import type { Span } from "../traces/layout";
import { SpanDetail, Waterfall } from "../traces/waterfall";
import { useUrl } from "../url/params";

/** Logs of a trace may be stamped a little before or after its spans. */
const MARGIN_MS = 5000;

export default function TracePage({ id }: { id: string }) {
  const trace = useTrace(id);
  const spans = trace.data ?? [];
  if (spans.length > 0) return <Found id={id} spans={spans} />;
  return (
    <Page title={id} above={[["Traces", "/traces"]]}>
      <Loaded query={trace}>{() => <Empty text="This trace has no spans." />}</Loaded>
    </Page>
  );
}

function Found({ id, spans }: { id: string; spans: Span[] }) {
  const url = useUrl();
  const selected = url.get("span");
  const span = spans.find((s) => s.id === selected);
  const facts = useMemo(() => {
    const start = Math.min(...spans.map((s) => s.start));
    const end = Math.max(...spans.map((s) => s.end));
    const known = new Set(spans.map((s) => s.id));
    const root = [...spans].sort((a, b) => a.start - b.start).find((s) => s.parent === null || !known.has(s.parent))!;
    return { start, end, root, services: new Set(spans.map((s) => s.service)), errors: spans.filter((s) => s.error !== null).length };
  }, [spans]);
  const query = ofTrace(id);
  const logs = useLogs(query, { start: facts.start - MARGIN_MS, end: facts.end + MARGIN_MS }, 500);
  const all = logs.data ?? [];
  // A span that logged shows its own lines; one that did not, those of the trace.
  const own = span ? all.filter((l) => l.labels.span_id === span.id) : [];
  const lines = own.length > 0 ? own : all;
  return (
    <Page title={`${facts.root?.service} ${facts.root?.name}`} above={[["Traces", "/traces"]]} badge={<Badge bare>{formatDuration(facts.end - facts.start)}</Badge>}>
      <div className="bar muted">
        <span className="mono">{id}</span>
        <span>{formatTime(facts.start, { millis: true, date: true })}</span>
        <span>{facts.services.size} services</span>
        {facts.errors > 0 && <Badge tone="bad">{facts.errors} failed</Badge>}
        <span className="grow" />
        <Link className="button small" href={url.href("/logs", { q: query, from: String(Math.floor(facts.start - MARGIN_MS)), to: String(Math.ceil(facts.end + MARGIN_MS)) })}>Logs of this trace</Link>
      </div>
      <div style={{ display: "grid", gridTemplateColumns: span ? "minmax(0, 1fr) 340px" : "minmax(0, 1fr)", gap: 12, flex: "none", height: `min(${Math.max(spans.length * 26 + 30, span ? 360 : 90)}px, 56vh)` }}>
        <section className="panel fill" aria-label="Waterfall" style={{ minHeight: 0 }}>
          <Waterfall spans={spans} logs={all} selected={selected} onSelect={(s) => url.set({ span: s }, { replace: true })} />
        </section>
        {span && (
          <section className="panel" aria-label="Span" style={{ overflow: "auto" }} tabIndex={0}>
            <header><h2 className="cut">{span.name}</h2><span className="spring" /><button type="button" className="button plain small" aria-label="Close details" onClick={() => url.set({ span: null }, { replace: true })}>✕</button></header>
            <div className="body"><SpanDetail span={span} /></div>
          </section>
        )}
      </div>
      <section className="panel" aria-label="Logs of the trace" style={{ display: "flex", flexDirection: "column", minHeight: 200, flex: 1 }}>
        <header style={{ paddingBottom: 6 }}><h2>{own.length > 0 ? "Logs of this span" : "Logs"}</h2><span className="muted">{lines.length} lines{own.length > 0 && ` of ${all.length}`}</span></header>
        {logs.isPending ? <Loading /> : logs.error ? <div className="state error">{logs.error.message}</div> : lines.length === 0 ? <Empty text="Nothing was logged with this trace's id." /> : (
          <LogList count={lines.length} at={(i) => lines[i]} follow={false} />
        )}
      </section>
    </Page>
  );
}
