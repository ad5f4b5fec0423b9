/** What one looks at first: nodes, pods, warnings, who uses most, and whether Binnacle itself is well. */

import { useMemo } from "react";
import { Link } from "wouter";
import { podStatus, readiness, statusTone, useList, type KubeEvent, type Node, type Pod, type Tone } from "../api/kubernetes";
import { useRange, type Series } from "../api/prometheus";
import { useWatch } from "../api/watch";
import { Sparkline } from "../chart/sparkline";
import { formatAge, formatValue, quantity, type Unit } from "../format";
import { Badge } from "../parts/badge";
import { EventTable } from "../parts/events";
import { Empty, Failure, Loaded, Loading } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { grid } from "../url/range";
import { useTime } from "../url/time";

const last = (s: Series | undefined) => s?.values.at(-1);

function Tile({ label, series, unit, children }: { label: string; series?: Series | undefined; unit?: Unit; children?: React.ReactNode }) {
  return (
    <section className="panel tile" aria-label={label}>
      <div className="label">{label}</div>
      <div className="value">{unit ? formatValue(last(series), unit) : null}{!unit && children}</div>
      <div className="under">{unit && (series ? <Sparkline values={series.values} width={140} height={22} /> : children)}</div>
    </section>
  );
}

function useOne(query: string) {
  const time = useTime();
  return useRange(query, grid(time, 60)).data?.[0];
}

export function Overview() {
  const time = useTime();
  const g = grid(time, 60);
  const window = `${Math.max(30, g.step * 2)}s`;
  const nodes = useList<Node>("/api/v1/nodes");
  const pods = useWatch<Pod>("/api/v1/pods");
  const events = useWatch<KubeEvent>("/api/v1/events");
  const samples = useOne(`sum(rate(binnacle_collector_accepted_items_total{signal="metrics"}[${window}]))`);
  const lines = useOne(`sum(rate(binnacle_collector_accepted_items_total{signal="logs"}[${window}]))`);
  const spans = useOne(`sum(rate(binnacle_collector_accepted_items_total{signal="traces"}[${window}]))`);
  const rss = useOne('process_resident_memory_bytes{job="binnacle"}');
  const cpu = useOne(`rate(process_cpu_seconds_total{job="binnacle"}[${window}])`);
  const nodeCpu = useRange(`sum by (node) (rate(node_cpu_seconds_total{mode!~"idle|iowait"}[${window}]))`, g);
  const nodeMemory = useRange("sum by (node) (node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes)", g);
  const nodeDisk = useRange('max by (node) (100 - 100 * node_filesystem_avail_bytes{mountpoint="/"} / node_filesystem_size_bytes)', g);
  const phases = useMemo(() => {
    const count = new Map<string, { n: number; tone: Tone }>();
    for (const pod of pods.items) {
      const status = podStatus(pod);
      const r = readiness(pod);
      const entry = count.get(status) ?? { n: 0, tone: "good" as Tone };
      const tone = statusTone(status, r.ready === r.of);
      count.set(status, { n: entry.n + 1, tone: entry.n === 0 || tone !== "good" ? tone : entry.tone });
    }
    return [...count].sort((a, b) => b[1].n - a[1].n);
  }, [pods.items]);
  const warnings = events.items.filter((e) => e.type === "Warning");
  return (
    <Page title="Overview">
      <div className="tiles">
        <Tile label="Nodes">
          {nodes.data ? `${nodes.data.filter(nodeReady).length} / ${nodes.data.length} ready` : "–"}
        </Tile>
        <section className="panel tile" aria-label="Pods">
          <div className="label">Pods</div>
          <div className="value">{pods.loaded ? pods.items.length : "–"}</div>
          <div className="under">
            {phases.map(([status, { n, tone }]) => <Badge key={status} tone={tone}>{n} {status}</Badge>)}
          </div>
        </section>
        <Tile label="Samples taken in" series={samples} unit="per second">waiting for samples</Tile>
        <Tile label="Log lines taken in" series={lines} unit="per second">no lines yet</Tile>
        <Tile label="Spans taken in" series={spans} unit="per second">no spans yet</Tile>
        <Tile label="Binnacle's memory" series={rss} unit="bytes">waiting for samples</Tile>
        <Tile label="Binnacle's CPU" series={cpu} unit="cores">waiting for samples</Tile>
      </div>
      <div className="columns">
        <Top title="Pods by CPU" query={`topk(8, sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{pod!="",container!=""}[${Math.max(10, g.step * 2)}s])))`} unit="cores" color="var(--s0)" />
        <Top title="Pods by memory" query={'topk(8, sum by (namespace, pod) (container_memory_working_set_bytes{pod!="",container!=""}))'} unit="bytes" color="var(--s3)" />
      </div>
      <section className="panel" aria-label="Warnings">
        <header><h2>Recent warnings</h2><span className="muted">{warnings.length}</span></header>
        <div className="body">
          {events.error ? <Failure error={events.error} /> : !events.loaded ? <Loading /> : warnings.length === 0 ? <Empty text="No warnings. All is calm." /> : <EventTable events={warnings} most={12} />}
        </div>
      </section>
      <section className="panel" aria-label="Nodes">
        <header><h2>Nodes</h2></header>
        <div className="body">
          <Loaded query={nodes}>
            {(list) => list.length === 0 ? <Empty text="No node has joined yet." /> : (
              <table>
                <thead><tr><th>Name</th><th>Status</th><th>Version</th><th>System</th><th>CPU</th><th>Memory</th><th>Disk</th><th>Age</th></tr></thead>
                <tbody>
                  {list.map((n) => (
                    <tr key={n.metadata.uid}>
                      <td>{n.metadata.name}</td>
                      <td><Badge tone={nodeReady(n) ? "good" : "bad"}>{nodeReady(n) ? "Ready" : "Not ready"}</Badge>{n.spec.unschedulable && " cordoned"}</td>
                      <td>{n.status?.nodeInfo?.kubeletVersion}</td>
                      <td>{n.status?.nodeInfo?.osImage}</td>
                      <td><Use node={n} all={nodeCpu.data} unit="cores" /> of {n.status?.capacity?.cpu}</td>
                      <td><Use node={n} all={nodeMemory.data} unit="bytes" /> of {formatValue(quantity(n.status?.capacity?.memory), "bytes")}</td>
                      <td><Use node={n} all={nodeDisk.data} unit="percent" /></td>
                      <td>{formatAge(n.metadata.creationTimestamp)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )}
          </Loaded>
        </div>
      </section>
    </Page>
  );
}

function nodeReady(n: Node): boolean {
  return n.status?.conditions?.some((c) => c.type === "Ready" && c.status === "True") ?? false;
}

/** What of a node's resource is in use, and how that went. */
function Use({ node, all, unit }: { node: Node; all: Series[] | undefined; unit: Unit }) {
  const series = all?.find((s) => s.labels.node === node.metadata.name);
  if (!series) return <span className="muted">not measured</span>;
  return (
    <span className="nowrap" style={{ display: "inline-flex", alignItems: "center", gap: 6 }}>
      <Sparkline values={series.values} width={60} height={16} />
      {formatValue(last(series), unit)}
    </span>
  );
}

/** `topk` over a range gives all that were ever among the first: the latest values decide here. */
function Top({ title, query, unit, color }: { title: string; query: string; unit: Unit; color: string }) {
  const time = useTime();
  const url = useUrl();
  const answer = useRange(query, grid(time, 40));
  return (
    <section className="panel" aria-label={title}>
      <header><h2>{title}</h2></header>
      <div className="body">
        <Loaded query={answer}>
          {(series) => {
            const top = series.filter((s) => s.times.at(-1)! >= grid(time, 40).end - 60).sort((a, b) => last(b)! - last(a)!).slice(0, 8);
            if (top.length === 0) return <Empty text="No pod has been measured in this time range." />;
            return (
              <table>
                <tbody>
                  {top.map((s) => {
                    const { namespace, pod } = s.labels;
                    return (
                      <tr key={`${namespace}/${pod}`}>
                        <td className="cut" style={{ maxWidth: 260 }}><Link href={url.href(`/pods/${namespace}/${pod}`)}>{pod}</Link> <span className="muted">{namespace}</span></td>
                        <td style={{ width: 96 }}><Sparkline values={s.values} color={color} /></td>
                        <td className="num" style={{ width: 90 }}>{formatValue(last(s), unit)}</td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
            );
          }}
        </Loaded>
      </div>
    </section>
  );
}
