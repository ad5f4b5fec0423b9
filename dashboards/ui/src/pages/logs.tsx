/** Searching logs by words or LogQL, and following them live. */

import { useEffect, useMemo, useState } from "react";
import { useLogs, useTranslated } from "../api/loki";
import { LogVolume } from "../chart/histogram";
import { LogList } from "../logs/list";
import { PatternList } from "../logs/patterns";
import { isLogQl, isMetric, marks, ofPattern, selectorOf, withLabel } from "../logs/query";
import { useHeld, useTail } from "../logs/tail";
import { Empty, Failure, Loading } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { useTime } from "../url/time";

const LIMIT = 1000;
const LEVELS = ["error", "warn", "info", "debug"];

export default function Logs() {
  const url = useUrl();
  const time = useTime();
  const asked = url.get("q") ?? "";
  const level = url.get("level") ?? "";
  const live = url.get("live") === "1";
  const [typed, setTyped] = useState(asked);
  const [paused, setPaused] = useState(false);
  useEffect(() => setTyped(asked), [asked]);
  const [patterns, setPatterns] = useState(false);
  const words_ = !isLogQl(asked);
  const translated = useTranslated(asked, words_);
  const base = words_ ? (translated.data ?? "") : asked;
  const metric = base !== "" && isMetric(base);
  const query = base !== "" && level && !metric ? `${base} | detected_level=\`${level}\`` : base;
  const words = useMemo(() => marks(query), [query]);
  const found = useLogs(query, time, LIMIT, !live && !metric);
  const { ring, waiting, error: tailError } = useTail(query, live && !metric && query !== "", paused);
  const { lines, held, hold } = useHeld(found.data, `${query}|${time.from}|${time.to}`);
  const count = live ? ring.length : lines.length;
  const filter = (name: string, value: string, equal: boolean) => url.set({ q: withLabel(base, name, value, equal) });
  return (
    <Page title="Logs">
      <form className="bar" onSubmit={(e) => { e.preventDefault(); if (typed.trim() === asked) time.reload(); else url.set({ q: typed.trim() }); }}>
        <input className="field mono grow" type="search" aria-label="Words or LogQL" placeholder='Words, -without, "a phrase", status:>=500, a OR b; or LogQL: {namespace="shop"} |= "error"' value={typed} onChange={(e) => setTyped(e.target.value)} />
        <select className="field" aria-label="Level" value={level} onChange={(e) => url.set({ level: e.target.value })}>
          <option value="">All levels</option>
          {LEVELS.map((l) => <option key={l}>{l}</option>)}
        </select>
        <button className="button primary">Search</button>
        <button type="button" className="button" aria-pressed={patterns} onClick={() => setPatterns(!patterns)}>Patterns</button>
        <button type="button" className="button" aria-pressed={live} onClick={() => { setPaused(false); url.set({ live: live ? null : "1" }); }}>Live</button>
        {live && <button type="button" className="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>{paused ? `Go on (${waiting} new)` : "Pause"}</button>}
      </form>
      {words_ && asked !== "" && query !== "" && <div className="muted">as LogQL: <code>{query}</code></div>}
      {words_ && translated.error && <Failure error={translated.error} />}
      {metric ? (
        <section className="panel"><Empty text="This is a metric query; logs are found by a query that begins with { }." /></section>
      ) : (
        <>
          <section className="panel" aria-label="Volume">
            <div className="body" style={{ paddingBottom: 8 }}>{query !== "" && <LogVolume query={query} range={time} onBrush={(a, b) => { url.set({ live: null }); time.narrow(a, b); }} />}</div>
          </section>
          {patterns && <PatternList query={selectorOf(base)} range={time} onPick={(p) => url.set({ q: ofPattern(selectorOf(base), p) })} />}
          <section className="panel fill" aria-label="Lines">
            <header style={{ paddingBottom: 7 }}>
              <h2>{live ? (paused ? "Paused" : "Following") : "Lines"}</h2>
              <span className="muted" aria-live="polite">
                {live ? `${ring.length} kept` : `${lines.length}${lines.length === LIMIT ? " newest" : ""}`}
                {live && ring.dropped > 0 && <b style={{ color: "var(--warn)" }}> · {ring.dropped} lines dropped on the way</b>}
                {live && ring.evicted > 0 && ` · ${ring.evicted} older let go`}
              </span>
              <span className="spring" />
              {!live && held && time.live && <button type="button" className="button small" onClick={() => hold(false)}>Held while you read; go on</button>}
            </header>
            {tailError && live && <div className="notice" style={{ margin: "0 12px 8px" }}>{tailError}</div>}
            {!live && found.error ? <Failure error={found.error} /> : !live && found.isPending ? <Loading /> : count === 0 ? (
              <Empty text={live ? "Waiting for lines…" : "No line of this time range matches."} />
            ) : live ? (
              <LogList count={ring.length} at={(i) => ring.at(i)} follow={!paused} onFollow={(f) => setPaused(!f)} words={words} onFilter={filter} />
            ) : (
              <LogList count={lines.length} at={(i) => lines[i]} follow={time.live && !held} onFollow={(f) => hold(!f)} words={words} onFilter={filter} />
            )}
          </section>
        </>
      )}
    </Page>
  );
}
