/** Everything about one pod on one time axis: metrics, events, its start, and its logs, under one cursor. */

import { useMemo, useState } from "react";
import { Link } from "wouter";
import {
  eventTime, ownerOf, podStatus, readiness, statusTone, type ContainerStatus, type KubeEvent, type Pod,
} from "../api/kubernetes";
import { useLogs, useTranslated } from "../api/loki";
import { quote } from "../api/prometheus";
import { useTrace } from "../api/tempo";
import { useWatch } from "../api/watch";
import { nameColor } from "../chart/colors";
import { LogVolume } from "../chart/histogram";
import { Lane, position } from "../chart/lane";
import { Panel, type Expression } from "../chart/panel";
import { formatAge, formatDuration, formatTime } from "../format";
import { LogList } from "../logs/list";
import { marks } from "../logs/query";
import { useHeld, useTail } from "../logs/tail";
import { Badge } from "../parts/badge";
import { EventTable } from "../parts/events";
import { Empty, Failure, Loading } from "../parts/states";
import { objectYaml } from "../parts/yaml";
import { Page } from "../shell/page";
import { Waterfall } from "../traces/waterfall";
import { useUrl } from "../url/params";
import { useTime } from "../url/time";

const VIEWS = [["signals", "Signals"], ["start", "Start trace"], ["events", "Events"], ["yaml", "YAML"]] as const;

export default function PodPage({ namespace, name }: { namespace: string; name: string }) {
  const url = useUrl();
  const pods = useWatch<Pod>(`/api/v1/namespaces/${namespace}/pods`, `metadata.name=${name}`);
  const events = useWatch<KubeEvent>(`/api/v1/namespaces/${namespace}/events`, `involvedObject.name=${name}`);
  const pod = pods.items.find((p) => p.metadata.name === name);
  const own = events.items.filter((e) => e.involvedObject.kind === "Pod" && e.involvedObject.name === name);
  const view = url.get("view") ?? "signals";
  const traceId = pod?.metadata.annotations?.["binnacle.io/traceparent"]?.split("-")[1] ?? "";
  const status = pod ? podStatus(pod) : pods.loaded ? "Gone" : "";
  const r = pod ? readiness(pod) : { ready: 0, of: 0, restarts: 0 };
  return (
    <Page title={name} above={[["Workloads", "/workloads"], [namespace, "/workloads", { ns: namespace }]]} badge={status && <Badge tone={pod ? statusTone(status, r.ready === r.of) : "idle"}>{status}</Badge>}>
      {pods.error && <div className="notice bad">{pods.error.message}</div>}
      {pods.loaded && !pod && !pods.error && <div className="notice">This pod is no longer there. What it left behind can still be seen.</div>}
      {pod && <Facts pod={pod} />}
      <span className="segment" role="group" aria-label="View" style={{ alignSelf: "flex-start" }}>
        {VIEWS.map(([key, text]) => <button key={key} type="button" aria-pressed={view === key} onClick={() => url.set({ view: key === "signals" ? null : key })}>{text}</button>)}
      </span>
      {view === "yaml" ? (
        <section className="panel" aria-label="YAML">{pod ? <pre className="yaml" tabIndex={0}>{objectYaml({ apiVersion: "v1", ...pod, kind: "Pod" })}</pre> : <Empty text="No object." />}</section>
      ) : view === "events" ? (
        <section className="panel" aria-label="Events"><div className="body">{events.loaded ? <EventTable events={own} most={200} object={false} /> : <Loading />}</div></section>
      ) : view === "start" ? (
        <StartTrace id={traceId} />
      ) : (
        <Signals namespace={namespace} name={name} events={own} traceId={traceId} />
      )}
    </Page>
  );
}

function stateText(s: ContainerStatus | undefined): string {
  const state = s?.state;
  if (state?.running) return `running for ${formatAge(state.running.startedAt)}`;
  if (state?.waiting) return [state.waiting.reason, state.waiting.message].filter(Boolean).join(": ");
  if (state?.terminated) return `${state.terminated.reason ?? "ended"} (exit code ${state.terminated.exitCode})`;
  return "unknown";
}

function Facts({ pod }: { pod: Pod }) {
  const owner = ownerOf(pod);
  const all = [
    ...(pod.spec.initContainers ?? []).map((c) => ({ c, init: true, s: pod.status?.initContainerStatuses?.find((s) => s.name === c.name) })),
    ...pod.spec.containers.map((c) => ({ c, init: false, s: pod.status?.containerStatuses?.find((s) => s.name === c.name) })),
  ];
  const pairs = (r: Record<string, string> | undefined) => Object.entries(r ?? {}).map(([k, v]) => `${k} ${v}`).join(", ") || "–";
  return (
    <section className="panel" aria-label="Containers">
      <div className="body" style={{ display: "grid", gap: 6 }}>
        <div className="bar muted">
          {owner && <span>of {owner.kind}/{owner.name}</span>}
          <span>on {pod.spec.nodeName ?? "no node yet"}</span>
          <span>{pod.status?.podIP ?? "no address yet"}</span>
          <span>{pod.status?.qosClass}</span>
          <span>age {formatAge(pod.metadata.creationTimestamp)}</span>
          <span className="grow" />
          {(pod.status?.conditions ?? []).map((c) => (
            <span key={c.type} title={[c.reason, c.message].filter(Boolean).join(": ")}><Badge tone={c.status === "True" ? "good" : "warn"}>{c.type}{c.status === "True" ? "" : `: ${c.reason ?? c.status}`}</Badge></span>
          ))}
        </div>
        <table>
          <thead><tr><th>Container</th><th>State</th><th>Ready</th><th>Restarts</th><th>Image</th><th>Requests</th><th>Limits</th></tr></thead>
          <tbody>
            {all.map(({ c, s, init }) => (
              <tr key={c.name}>
                <td>{c.name}{init && <span className="muted"> init</span>}</td>
                <td>{stateText(s)}</td>
                <td>{s?.ready ? "yes" : "no"}</td>
                <td>{s?.restartCount ?? 0}{s?.lastState?.terminated && <span className="muted"> last: {s.lastState.terminated.reason} ({s.lastState.terminated.exitCode})</span>}</td>
                <td className="mono" style={{ overflowWrap: "anywhere" }}>{c.image}</td>
                <td>{pairs(c.resources?.requests)}</td>
                <td>{pairs(c.resources?.limits)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Signals({ namespace, name, events, traceId }: { namespace: string; name: string; events: KubeEvent[]; traceId: string }) {
  const time = useTime();
  const of = `namespace=${quote(namespace)},pod=${quote(name)}`;
  const panels = useMemo<Record<"cpu" | "memory" | "network", Expression[]>>(
    () => ({
      cpu: [
        { query: `sum by (container) (rate(container_cpu_usage_seconds_total{${of},container!=""}[$window]))`, name: (l) => l.container ?? "all" },
        { query: `sum(kube_pod_container_resource_requests{${of},resource="cpu"})`, name: () => "requested", color: "var(--s7)", dash: true },
      ],
      memory: [
        { query: `sum by (container) (container_memory_working_set_bytes{${of},container!=""})`, name: (l) => l.container ?? "all" },
        { query: `sum(kube_pod_container_resource_limits{${of},resource="memory"})`, name: () => "limit", color: "var(--bad)", dash: true },
      ],
      network: [
        { query: `sum(rate(container_network_receive_bytes_total{${of}}[$window]))`, name: () => "received", color: "var(--s2)" },
        { query: `sum(rate(container_network_transmit_bytes_total{${of}}[$window]))`, name: () => "sent", color: "var(--s3)" },
      ],
    }),
    [of],
  );
  const trace = useTrace(traceId);
  const spans = (trace.data ?? []).filter((s) => s.end >= time.start && s.start <= time.end);
  return (
    <>
      <section className="panel" aria-label="Metrics" style={{ padding: "8px 0 4px" }}>
        <Panel part title="CPU" unit="cores" height={96} expressions={panels.cpu} />
        <Panel part title="Memory" unit="bytes" height={96} expressions={panels.memory} />
        <Panel part title="Network" unit="bytes/s" height={96} expressions={panels.network} />
      </section>
      <section className="panel" aria-label="Events and start on the time axis">
        <header><h2>Events and start</h2><span className="muted">{events.length} events, {spans.length} spans of its start in this range</span></header>
        <div className="body" style={{ padding: "4px 0 10px" }}>
          <Lane range={time} height={42} label="Events and start" onBrush={time.narrow}>
            <div className="track">
              {events.map((e) => {
                const p = position(eventTime(e), time);
                return p !== null && <span key={e.metadata.uid} className="dot" title={`${formatTime(eventTime(e))} ${e.reason}: ${e.message}`} style={{ left: `${p}%`, background: e.type === "Warning" ? "var(--warn)" : "var(--s7)" }} />;
              })}
            </div>
            <div className="track">
              {spans.map((s) => {
                const a = position(Math.max(s.start, time.start), time)!;
                const b = position(Math.min(s.end, time.end), time)!;
                return <span key={s.id} className="spanbar" title={`${s.service} ${s.name}: ${formatDuration(s.end - s.start)}`} style={{ left: `${a}%`, width: `${b - a}%`, background: nameColor(s.service) }} />;
              })}
            </div>
          </Lane>
        </div>
      </section>
      <PodLogs namespace={namespace} name={name} />
    </>
  );
}

const LIMIT = 1000;

function PodLogs({ namespace, name }: { namespace: string; name: string }) {
  const url = useUrl();
  const time = useTime();
  const words = url.get("find") ?? "";
  const live = url.get("live") === "1";
  const [paused, setPaused] = useState(false);
  const query = useTranslated(words, true, `{namespace=${quote(namespace)}, pod=${quote(name)}}`).data ?? "";
  const found = useLogs(query, time, LIMIT, !live);
  const { ring, waiting, error } = useTail(query, live && query !== "", paused);
  const { lines, held, hold } = useHeld(found.data, `${query}|${time.from}|${time.to}`);
  return (
    <section className="panel" aria-label="Logs" style={{ flex: "none" }}>
      <header>
        <h2>Logs</h2>
        <span className="muted">{live ? `${ring.length} kept` : `${lines.length}${lines.length === LIMIT ? " newest" : ""} lines`}{live && ring.dropped > 0 && ` · ${ring.dropped} lines dropped`}</span>
        <span className="spring" />
        {!live && held && time.live && <button type="button" className="button small" onClick={() => hold(false)}>Held while you read; go on</button>}
        <input className="field" type="search" aria-label="Find in logs" placeholder="Find in logs" value={words} onChange={(e) => url.set({ find: e.target.value }, { replace: true })} />
        <button type="button" className="button" aria-pressed={live} onClick={() => { setPaused(false); url.set({ live: live ? null : "1" }, { replace: true }); }}>Live</button>
        {live && <button type="button" className="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>{paused ? `Go on (${waiting} new)` : "Pause"}</button>}
        <Link className="button plain small" href={url.href("/logs", { q: query })}>Open in Logs</Link>
      </header>
      <div style={{ padding: "8px 0" }}><LogVolume query={query} range={time} height={40} onBrush={time.narrow} /></div>
      {error && live && <div className="notice">{error}</div>}
      <div style={{ height: 340, display: "flex", flexDirection: "column" }}>
        {!live && found.error ? <Failure error={found.error} /> : !live && found.isPending ? <Loading /> : (live ? ring.length : lines.length) === 0 ? <Empty text={live ? "Waiting for lines…" : "No lines in this time range."} /> : live ? (
          <LogList count={ring.length} at={(i) => ring.at(i)} follow={!paused} onFollow={(f) => setPaused(!f)} words={marks(query)} source={false} />
        ) : (
          <LogList count={lines.length} at={(i) => lines[i]} follow={time.live && !held} onFollow={(f) => hold(!f)} words={marks(query)} source={false} />
        )}
      </div>
    </section>
  );
}

function StartTrace({ id }: { id: string }) {
  const url = useUrl();
  const trace = useTrace(id);
  const [selected, setSelected] = useState<string | null>(null);
  if (id === "") return <section className="panel"><Empty text="This pod carries no trace of its start." /></section>;
  return (
    <section className="panel" aria-label="Start trace">
      <header style={{ paddingBottom: 8 }}><h2>How this pod started</h2><span className="spring" /><Link className="button small" href={url.href(`/traces/${id}`)}>Open trace</Link></header>
      {trace.error ? <Failure error={trace.error} /> : !trace.data ? <Loading /> : (
        <Waterfall spans={trace.data} selected={selected} onSelect={setSelected} height={Math.min(trace.data.length * 26 + 4, 520)} />
      )}
    </section>
  );
}
