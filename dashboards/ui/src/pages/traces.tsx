/** Searching traces. */

import { useEffect, useState } from "react";
import { Link } from "wouter";
import { useTagValues, useTraceSearch } from "../api/tempo";
import { nameColor } from "../chart/colors";
import { formatDuration, formatTime } from "../format";
import { Badge } from "../parts/badge";
import { Empty, Loaded } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { useTime } from "../url/time";

const LIMIT = 100;
const DURATION = /^\d+(\.\d+)?(ns|us|µs|ms|s|m|h)$/;

export default function Traces() {
  const url = useUrl();
  const time = useTime();
  const services = useTagValues("service.name");
  const names = useTagValues("name");
  const service = url.get("service") ?? "";
  const name = url.get("name") ?? "";
  const least = url.get("min") ?? "";
  const [typedName, setTypedName] = useState(name);
  const [typedLeast, setTypedLeast] = useState(least);
  useEffect(() => setTypedName(name), [name]);
  useEffect(() => setTypedLeast(least), [least]);
  const badLeast = typedLeast !== "" && !DURATION.test(typedLeast);
  const found = useTraceSearch({ service, name, minDuration: least, start: time.start, end: time.end }, LIMIT);
  const [id, setId] = useState("");
  return (
    <Page title="Traces">
      <form
        className="bar"
        onSubmit={(e) => {
          e.preventDefault();
          if (!badLeast) url.set({ name: typedName, min: typedLeast });
        }}
      >
        <select className="field" aria-label="Service" value={service} onChange={(e) => url.set({ service: e.target.value })}>
          <option value="">All services</option>
          {(services.data ?? []).map((s) => <option key={s}>{s}</option>)}
        </select>
        <input className="field" style={{ width: 240 }} list="span-names" aria-label="Name of a span" placeholder="Name of a span" value={typedName} onChange={(e) => setTypedName(e.target.value)} />
        <datalist id="span-names">{(names.data ?? []).slice(0, 200).map((n) => <option key={n} value={n} />)}</datalist>
        <input className="field" style={{ width: 130 }} aria-label="Least duration" aria-invalid={badLeast} placeholder="At least, 10ms" value={typedLeast} onChange={(e) => setTypedLeast(e.target.value)} />
        <button className="button primary" disabled={badLeast}>Search</button>
        <span className="grow" />
        <input
          className="field mono" style={{ width: 260 }} aria-label="Trace id" placeholder="Trace id ↵" value={id}
          onChange={(e) => setId(e.target.value)}
        />
        {/^[0-9a-f]{8,32}$/i.test(id.trim()) && <Link className="button" href={url.href(`/traces/${id.trim()}`)}>Open</Link>}
      </form>
      <section className="panel" aria-label="Traces found">
        <header><h2>Traces</h2><span className="muted">{found.data ? `${found.data.length}${found.data.length === LIMIT ? ", newest" : ""}` : ""}</span></header>
        <div className="body">
          <Loaded query={found}>
            {(traces) => {
              if (traces.length === 0) return <Empty text="No trace of this time range matches." />;
              const longest = Math.max(...traces.map((t) => t.durationMs), 1);
              return (
                <table>
                  <thead><tr><th>Start</th><th>Trace</th><th>Services</th><th className="num">Spans</th><th style={{ width: 220 }}>Duration</th></tr></thead>
                  <tbody>
                    {traces.map((t) => (
                      <tr key={t.traceID}>
                        <td className="nowrap mono">{formatTime(Number(t.startTimeUnixNano.slice(0, -6)), { millis: true })}</td>
                        <td><Link href={url.href(`/traces/${t.traceID}`)}><b style={{ fontWeight: 550 }}>{t.rootServiceName}</b> {t.rootTraceName}</Link> {t.errorCount > 0 && <Badge tone="bad">{t.errorCount} failed</Badge>}</td>
                        <td>
                          {Object.entries(t.serviceStats).map(([s, { spanCount }]) => (
                            <span key={s} className="nowrap" style={{ marginRight: 10 }}><i className="swatch" style={{ background: nameColor(s) }} /> {s} <span className="muted">{spanCount}</span></span>
                          ))}
                        </td>
                        <td className="num">{t.spanCount}</td>
                        <td>
                          <span style={{ display: "flex", gap: 8, alignItems: "center" }}>
                            <span style={{ width: 120, flex: "none" }}><span style={{ display: "block", height: 6, borderRadius: 3, minWidth: 2, background: "var(--s0)", width: `${(t.durationMs / longest) * 100}%` }} /></span>
                            {t.durationMs < 1 ? "< 1 ms" : formatDuration(t.durationMs)}
                          </span>
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              );
            }}
          </Loaded>
        </div>
      </section>
    </Page>
  );
}
