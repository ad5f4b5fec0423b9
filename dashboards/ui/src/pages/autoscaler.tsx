/** One autoscaler: its replicas over time and every decision with its reason, down to the query behind it. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { useObject, type Autoscaler } from "../api/kubernetes";
import { logQuery } from "../api/loki";
import { labelText, quote } from "../api/prometheus";
import { Lane, position } from "../chart/lane";
import { Panel } from "../chart/panel";
import { formatNumber, formatTime } from "../format";
import { Badge } from "../parts/badge";
import { Empty, Failure, Loaded } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { useTime } from "../url/time";

type Target = { type: "utilization" | "averageValue" | "value"; value: number };

interface MetricDecision {
  name: string;
  query: string;
  samples: { labels: Record<string, string>; value: number }[];
  target: Target;
  current?: number;
  ratio?: number;
  withinTolerance: boolean;
  proposed?: number;
  error?: string;
  notCounted: string[];
}

interface Decision {
  target: string;
  time: number;
  from: number;
  to: number;
  metrics: MetricDecision[];
  selected: string | null;
  proposed: number | null;
  constraints: { name: string; before: number; after: number; message: string }[];
  reason: string;
}

/** The newest decisions of a time range. */
const MOST = 200;

function useDecisions(namespace: string, name: string) {
  const time = useTime();
  const query = `{namespace=${quote(namespace)}, record="hpa-decision"} | json | hpa=${quote(name)}`;
  return useQuery({
    queryKey: ["decisions", query, Math.floor(time.start / 1000), Math.floor(time.end / 1000)],
    queryFn: async ({ signal }) => {
      const lines = await logQuery(query, time, MOST, signal);
      return lines.map((l) => ({ trace: l.labels.trace_id ?? null, ...(JSON.parse(l.text) as Decision) })).reverse();
    },
    placeholderData: keepPreviousData,
  });
}

function targetText(t: Target): string {
  return t.type === "utilization" ? `${t.value}%` : t.type === "averageValue" ? `${formatNumber(t.value)} per pod` : formatNumber(t.value);
}

export default function AutoscalerPage({ namespace, name }: { namespace: string; name: string }) {
  const time = useTime();
  const object = useObject<Autoscaler>(`/apis/autoscaling/v2/namespaces/${namespace}/horizontalpodautoscalers/${name}`);
  const decisions = useDecisions(namespace, name);
  const own = `{namespace=${quote(namespace)},horizontalpodautoscaler=${quote(name)}}`;
  const h = object.data;
  const last = decisions.data?.[0];
  const latest = last?.metrics.find((m) => m.name === last.selected) ?? last?.metrics[0];
  const one = (metric: string, label: string, color: string, dash = false) => ({ query: `max(${metric}${own})`, name: () => label, color, stepped: true, ...(dash ? { dash } : {}) });
  return (
    <Page title={name} above={[["Autoscaling", "/hpa"]]} badge={<span className="muted">{namespace}</span>}>
      {object.error && <div className="notice bad">{object.error.message}</div>}
      {h && (
        <div className="bar">
          <span>scales <b>{h.spec.scaleTargetRef.kind}/{h.spec.scaleTargetRef.name}</b> between {h.spec.minReplicas ?? 1} and {h.spec.maxReplicas}; now <b>{h.status?.currentReplicas ?? 0}</b>, wanted <b>{h.status?.desiredReplicas ?? 0}</b></span>
          <span className="grow" />
          {h.status?.conditions?.map((c) => (
            <span key={c.type} title={c.message}><Badge tone={(c.type === "ScalingLimited") === (c.status === "True") ? "warn" : "good"}>{c.type}: {c.reason ?? c.status}</Badge></span>
          ))}
        </div>
      )}
      <Panel
        title="Replicas"
        unit="count"
        height={170}
        expressions={[
          one("kube_horizontalpodautoscaler_status_current_replicas", "current", "var(--s0)"),
          one("kube_horizontalpodautoscaler_status_desired_replicas", "wanted", "var(--s1)"),
          one("kube_horizontalpodautoscaler_spec_min_replicas", "min", "var(--s7)", true),
          one("kube_horizontalpodautoscaler_spec_max_replicas", "max", "var(--s7)", true),
        ]}
      />
      {latest && (
        <Panel title={latest.name} unit="short" height={130} expressions={[{ query: latest.query, name: (l) => l.pod ?? labelText(l) }]} />
      )}
      <section className="panel" aria-label="Decisions">
        <header><h2>Decisions</h2><span className="muted">{decisions.data?.length ?? ""}{decisions.data?.length === MOST ? " newest" : ""}</span></header>
        <div style={{ padding: "6px 0 0" }}>
          <Lane range={time} height={20} label="Decisions over time" onBrush={time.narrow}>
            <div className="track">
              {(decisions.data ?? []).map((d) => {
                const p = position(d.time, time);
                return p !== null && <span key={d.time} className="dot" title={d.reason} style={{ left: `${p}%`, background: d.to > d.from ? "var(--s1)" : d.to < d.from ? "var(--s0)" : "var(--s7)" }} />;
              })}
            </div>
          </Lane>
        </div>
        <Loaded query={decisions}>
          {(list) => list.length === 0 ? <Empty text="Nothing was decided in this time range: a record is written when something changes." /> : (
            <div>{list.map((d, i) => <Reason key={`${d.time}/${d.from}/${d.to}`} decision={d} trace={d.trace} first={i === 0} />)}</div>
          )}
        </Loaded>
        {decisions.error && decisions.data && <Failure error={decisions.error} />}
      </section>
    </Page>
  );
}

function Reason({ decision: d, trace, first }: { decision: Decision; trace: string | null; first: boolean }) {
  const url = useUrl();
  const [open, setOpen] = useState(first);
  return (
    <div className="reason">
      <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
        <span className="muted mono">{open ? "▾" : "▸"} {formatTime(d.time, { millis: true })}</span>
        <span>{d.to === d.from ? <Badge>{d.from} stays</Badge> : <Badge tone={d.to > d.from ? "warn" : "good"}>{d.from} → {d.to}</Badge>}</span>
        <span>{d.reason}</span>
      </button>
      {open && (
        <div className="why">
          <table>
            <thead><tr><th>Metric</th><th className="num">Now</th><th className="num">Target</th><th className="num">Ratio</th><th className="num">Proposes</th><th>Query</th></tr></thead>
            <tbody>
              {d.metrics.map((m) => (
                <tr key={m.name + m.query}>
                  <td>{m.name}{m.name === d.selected && <> <Badge bare>decides</Badge></>}{m.error && <div style={{ color: "var(--bad)" }}>{m.error}</div>}{m.notCounted.length > 0 && <div className="muted">not counted: {m.notCounted.join(", ")}</div>}</td>
                  <td className="num">{m.current === undefined ? "–" : formatNumber(m.current)}{m.target.type === "utilization" && m.current !== undefined && "%"}</td>
                  <td className="num nowrap">{targetText(m.target)}</td>
                  <td className="num nowrap">{m.ratio === undefined ? "–" : m.ratio.toFixed(2)}{m.withinTolerance && <span className="muted"> in tolerance</span>}</td>
                  <td className="num">{m.proposed ?? "–"}</td>
                  <td>
                    <code style={{ overflowWrap: "anywhere" }}>{m.query}</code>{" "}
                    <Link className="nowrap" href={url.href("/explore", { q: m.query, at: String(d.time), from: String(d.time - 300_000), to: String(d.time + 60_000) })}>Open in Explore at that time</Link>
                    <div className="muted">{m.samples.slice(0, 12).map((s) => `${s.labels.pod ?? Object.values(s.labels).join(" ")} = ${formatNumber(s.value)}`).join(", ")}</div>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
          <div className="chain" aria-label="From proposal to result">
            <span className="step">{d.from} now</span>
            {d.proposed !== null && <>→ <span className="step">{d.proposed} proposed</span></>}
            {d.constraints.map((c) => <span key={c.name} className="chain">→ <span className="step" title={c.message}><b>{c.name}</b> {c.before} → {c.after} <span className="muted">{c.message}</span></span></span>)}
            → <span className="step"><b>{d.to}</b></span>
            {trace && <Link className="button small" href={url.href(`/traces/${trace}`)}>Open trace</Link>}
          </div>
        </div>
      )}
    </div>
  );
}
