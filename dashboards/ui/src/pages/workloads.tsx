/** Namespaces, what people made in them, and its pods: live through a watch, drawn only as far as one sees. */

import { useVirtualizer } from "@tanstack/react-virtual";
import { useMemo, useRef } from "react";
import { Link } from "wouter";
import { ownerOf, podStatus, readiness, statusTone, type Pod, type Tone } from "../api/kubernetes";
import { useRange, type Series } from "../api/prometheus";
import { useWatch } from "../api/watch";
import { Sparkline } from "../chart/sparkline";
import { formatAge, formatValue, type Unit } from "../format";
import { Badge } from "../parts/badge";
import { Empty, Failure, Loading } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { grid } from "../url/range";
import { useTime } from "../url/time";

type Row =
  | { kind: "namespace" | "owner"; id: string; depth: number; label: string; pods: Pod[] }
  | { kind: "pod"; id: string; depth: number; pod: Pod };

function rows(pods: Pod[], closed: ReadonlySet<string>): Row[] {
  const tree = new Map<string, Map<string, Pod[]>>();
  for (const pod of pods) {
    const owner = ownerOf(pod);
    const owners = tree.get(pod.metadata.namespace!) ?? new Map<string, Pod[]>();
    const key = owner ? `${owner.kind}/${owner.name}` : "Pods of their own";
    owners.set(key, [...(owners.get(key) ?? []), pod]);
    tree.set(pod.metadata.namespace!, owners);
  }
  const out: Row[] = [];
  for (const [namespace, owners] of [...tree].sort(([a], [b]) => a.localeCompare(b))) {
    out.push({ kind: "namespace", id: namespace, depth: 0, label: namespace, pods: [...owners.values()].flat() });
    if (closed.has(namespace)) continue;
    for (const [owner, list] of [...owners].sort(([a], [b]) => a.localeCompare(b))) {
      const id = `${namespace}/${owner}`;
      out.push({ kind: "owner", id, depth: 1, label: owner, pods: list });
      if (closed.has(id)) continue;
      list.sort((a, b) => a.metadata.name.localeCompare(b.metadata.name));
      for (const pod of list) out.push({ kind: "pod", id: pod.metadata.uid, depth: 2, pod });
    }
  }
  return out;
}

function byPod(series: Series[] | undefined): Map<string, Series> {
  return new Map((series ?? []).map((s) => [`${s.labels.namespace}/${s.labels.pod}`, s]));
}

function Usage({ series, unit, color }: { series: Series | undefined; unit: Unit; color: string }) {
  return (
    <span style={{ display: "flex", gap: 8, alignItems: "center" }}>
      <Sparkline values={series?.values ?? []} color={color} />
      <span>{formatValue(series?.values.at(-1), unit)}</span>
    </span>
  );
}

export default function Workloads() {
  const url = useUrl();
  const time = useTime();
  const watch = useWatch<Pod>("/api/v1/pods");
  const find = url.get("find") ?? "";
  const namespace = url.get("ns") ?? "";
  const closedText = url.get("closed") ?? "";
  const closed = useMemo(() => new Set(closedText.split(",").filter(Boolean)), [closedText]);
  const namespaces = useMemo(() => [...new Set(watch.items.map((p) => p.metadata.namespace!))].sort(), [watch.items]);
  const all = useMemo(() => {
    const words = find.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = watch.items.filter((p) => {
      const text = `${p.metadata.namespace} ${p.metadata.name} ${podStatus(p)}`.toLowerCase();
      return (!namespace || p.metadata.namespace === namespace) && words.every((w) => text.includes(w));
    });
    return rows(chosen, closed);
  }, [watch.items, find, namespace, closed]);
  const g = grid(time, 30);
  const cpu = byPod(useRange(`sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{pod!="",container!=""}[${Math.max(10, g.step * 2)}s]))`, g).data);
  const memory = byPod(useRange('sum by (namespace, pod) (container_memory_working_set_bytes{pod!="",container!=""})', g).data);
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({ count: all.length, getScrollElement: () => scroller.current, estimateSize: () => 34, overscan: 12 });
  const toggle = (id: string) => {
    const next = new Set(closed);
    if (!next.delete(id)) next.add(id);
    url.set({ closed: [...next].join(",") }, { replace: true });
  };
  return (
    <Page title="Workloads" badge={<Badge bare>{watch.items.length} pods</Badge>}>
      <div className="bar">
        <select className="field" aria-label="Namespace" value={namespace} onChange={(e) => url.set({ ns: e.target.value })}>
          <option value="">All namespaces</option>
          {namespaces.map((n) => <option key={n}>{n}</option>)}
        </select>
        <input className="field" style={{ width: 280 }} type="search" aria-label="Find" placeholder="Find by name or status" value={find} onChange={(e) => url.set({ find: e.target.value }, { replace: true })} />
        {watch.error && <span className="notice bad">{watch.error.message}</span>}
      </div>
      <section className="panel fill" aria-label="Pods">
        {!watch.loaded ? <Loading /> : watch.error && watch.items.length === 0 ? <Failure error={watch.error} /> : all.length === 0 ? (
          <Empty text={watch.items.length ? "Nothing matches." : "No pods yet. Apply something with kubectl and it appears here at once."} />
        ) : (
          <div ref={scroller} className="scroller" role="treegrid" aria-label="Workloads" aria-rowcount={all.length} tabIndex={0}>
            <div className="grid-row workload head" role="row">
              {["Name", "Status", "Ready", "Restarts", "Age", "CPU", "Memory", "Node"].map((h) => <span key={h} role="columnheader">{h}</span>)}
            </div>
            <div className="virtual" role="rowgroup" style={{ height: virtual.getTotalSize() }}>
              {virtual.getVirtualItems().map((v) => {
                const row = all[v.index]!;
                const style = { top: v.start };
                const indent = { paddingLeft: row.depth * 18 };
                if (row.kind !== "pod") {
                  const open = !closed.has(row.id);
                  const bad = row.pods.filter((p) => statusTone(podStatus(p), readiness(p).ready === readiness(p).of) !== "good").length;
                  return (
                    <div key={row.id} className="row grid-row workload" style={style} role="row" aria-level={row.depth + 1} aria-expanded={open} aria-rowindex={v.index + 1}>
                      <span role="gridcell" className="cut" style={{ ...indent, fontWeight: row.kind === "namespace" ? 600 : 500 }}>
                        <button type="button" className="tree-button" aria-label={`${open ? "Close" : "Open"} ${row.label}`} onClick={() => toggle(row.id)}>{open ? "▾" : "▸"}</button>
                        {row.label} <span className="muted">{row.pods.length}</span>
                      </span>
                      <span role="gridcell">{bad > 0 && <Badge tone="warn">{bad} not ready</Badge>}</span>
                    </div>
                  );
                }
                const { pod } = row;
                const m = pod.metadata;
                const status = podStatus(pod);
                const r = readiness(pod);
                const tone: Tone = statusTone(status, r.ready === r.of);
                const key = `${m.namespace}/${m.name}`;
                return (
                  <div key={row.id} className="row grid-row workload" style={style} role="row" aria-level={3} aria-rowindex={v.index + 1}>
                    <span role="gridcell" className="cut" style={indent}><Link href={url.href(`/pods/${key}`)}>{m.name}</Link></span>
                    <span role="gridcell"><Badge tone={tone}>{status}</Badge></span>
                    <span role="gridcell">{r.ready}/{r.of}</span>
                    <span role="gridcell">{r.restarts}</span>
                    <span role="gridcell">{formatAge(m.creationTimestamp, time.live ? time.end : Date.now())}</span>
                    <span role="gridcell"><Usage series={cpu.get(key)} unit="cores" color="var(--s0)" /></span>
                    <span role="gridcell"><Usage series={memory.get(key)} unit="bytes" color="var(--s3)" /></span>
                    <span role="gridcell" className="cut muted">{pod.spec.nodeName}</span>
                  </div>
                );
              })}
            </div>
          </div>
        )}
      </section>
    </Page>
  );
}
