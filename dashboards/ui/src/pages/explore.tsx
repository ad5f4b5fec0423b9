/** Any PromQL, as a graph and as a table. */

import { lazy, Suspense, useMemo, useState } from "react";
import { labelText, useInstant, useRange, type Instant } from "../api/prometheus";
import { Chart } from "../chart/chart";
import { formatTime } from "../format";
import { Empty, Failure, Loading } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { grid } from "../url/range";
import { useTime } from "../url/time";

const Editor = lazy(() => import("../editor/promql"));

/** Lines a person can still tell apart; the table has them all. */
const MOST_LINES = 40;

const EXAMPLES = [
  ["CPU by pod", 'sum by (pod) (rate(container_cpu_usage_seconds_total{container!=""}[30s]))'],
  ["Memory by pod", 'sum by (pod) (container_memory_working_set_bytes{container!=""})'],
  ["Requests to the API server", "sum by (verb) (rate(apiserver_request_total[1m]))"],
  ["Binnacle's memory", "process_resident_memory_bytes"],
] as const;

export default function Explore() {
  const url = useUrl();
  const time = useTime();
  const query = url.get("q") ?? "";
  const tab = url.get("tab") === "table" ? "table" : "graph";
  const at = Number(url.get("at")) || time.end;
  const [typed, setTyped] = useState(query);
  const run = (q: string) => {
    if (q.trim() === query) time.reload();
    else url.set({ q: q.trim(), at: null });
  };
  return (
    <Page title="Explore">
      <div className="bar" style={{ flexWrap: "nowrap", alignItems: "flex-start" }}>
        <Suspense fallback={<div className="editor grow" style={{ height: 36 }} />}>
          <Editor value={query} onRun={run} onChange={setTyped} />
        </Suspense>
        <button type="button" className="button primary" style={{ minHeight: 36 }} onClick={() => run(typed)}>Run</button>
      </div>
      {query === "" ? (
        <section className="panel">
          <Empty text="Write a query, or begin with one of these:">
            <span className="bar">{EXAMPLES.map(([name, q]) => <button key={name} type="button" className="button" onClick={() => run(q)}>{name}</button>)}</span>
          </Empty>
        </section>
      ) : (
        <section className="panel" aria-label="Result">
          <header>
            <span className="segment" role="group" aria-label="Form">
              <button type="button" aria-pressed={tab === "graph"} onClick={() => url.set({ tab: null })}>Graph</button>
              <button type="button" aria-pressed={tab === "table"} onClick={() => url.set({ tab: "table" })}>Table</button>
            </span>
            <span className="spring" />
            {tab === "table" && <span className="muted">at {formatTime(at, { date: true })}</span>}
          </header>
          <div className="body">{tab === "graph" ? <Graph query={query} /> : <Table query={query} at={at} />}</div>
        </section>
      )}
    </Page>
  );
}

function Graph({ query }: { query: string }) {
  const time = useTime();
  const g = grid(time, 300);
  const answer = useRange(query, g);
  const lines = useMemo(
    () => (answer.data ?? []).slice(0, MOST_LINES).map((s) => ({ name: labelText(s.labels), times: s.times, values: s.values })),
    [answer.data],
  );
  if (answer.error) return <Failure error={answer.error} />;
  if (!answer.data) return <Loading />;
  if (lines.length === 0) return <Empty text="The query gives nothing in this time range." />;
  return (
    <>
      <Chart title={query} lines={lines} unit="short" range={time} step={g.step} height={380} onBrush={time.narrow} />
      {answer.data.length > MOST_LINES && <div className="notice" style={{ marginTop: 8 }}>The first {MOST_LINES} of {answer.data.length} series are drawn. Narrow the query, or look at the table.</div>}
    </>
  );
}

const MOST_ROWS = 1000;

function Table({ query, at }: { query: string; at: number }) {
  const answer = useInstant(query, at);
  if (answer.error) return <Failure error={answer.error} />;
  if (!answer.data) return <Loading />;
  const { samples, warnings }: Instant = answer.data;
  if (samples.length === 0) return <Empty text="The query gives nothing at this time." />;
  const names = [...new Set(samples.flatMap((s) => Object.keys(s.labels)))].sort();
  return (
    <>
      {warnings.map((w) => <div key={w} className="notice">{w}</div>)}
      <div style={{ overflow: "auto", maxHeight: "70vh" }} tabIndex={0} role="group" aria-label="Samples">
        <table>
          <thead><tr>{names.map((n) => <th key={n}>{n}</th>)}<th className="num">value</th></tr></thead>
          <tbody>
            {samples.slice(0, MOST_ROWS).map((s, i) => (
              <tr key={i}>{names.map((n) => <td key={n}>{s.labels[n]}</td>)}<td className="num mono">{s.value}</td></tr>
            ))}
          </tbody>
        </table>
      </div>
      {samples.length > MOST_ROWS && <div className="notice">The first {MOST_ROWS} of {samples.length} rows.</div>}
    </>
  );
}
