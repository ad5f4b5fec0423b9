/** What fires, what waits, what has ended lately; and every rule, with what it asks and how it fares. */

import { Link } from "wouter";
import type { Tone } from "../api/kubernetes";
import { labelText } from "../api/prometheus";
import { useAlerts, useRules, type Alert, type AlertState, type Rule, type RuleGroup } from "../api/rules";
import { formatAge, formatDuration, formatNumber } from "../format";
import { Badge } from "../parts/badge";
import { Empty, Loaded } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { useTime } from "../url/time";

const STATES = ["firing", "pending", "inactive"] as const;

const TONES: Record<AlertState, Tone> = { firing: "bad", pending: "warn", inactive: "good", unknown: "idle" };

const WORDS: Record<AlertState, string> = { firing: "Firing", pending: "Pending", inactive: "Inactive", unknown: "Not evaluated" };

/** What people are to read first. */
function summary(texts: Record<string, string>): string {
  return texts.summary ?? texts.message ?? texts.description ?? Object.values(texts)[0] ?? "";
}

function matches(words: string[], text: string): boolean {
  const lower = text.toLowerCase();
  return words.every((w) => lower.includes(w));
}

export default function Alerts() {
  const url = useUrl();
  const time = useTime();
  const rules = useRules(time.end);
  const alerts = useAlerts(time.end);
  const chosen = url.get("state") ?? "";
  const find = url.get("find") ?? "";
  const words = find.toLowerCase().split(/\s+/).filter(Boolean);
  const all = rules.data?.groups.flatMap((g) => g.rules) ?? [];
  const ofState = (state: AlertState) => alerts.data?.filter((a) => a.state === state).length ?? 0;
  const broken = all.filter((r) => r.health === "err").length;
  return (
    <Page title="Alerts" badge={ofState("firing") > 0 ? <Badge tone="bad">{ofState("firing")} firing</Badge> : undefined}>
      {rules.data?.problems.map((p) => <div key={p} className="notice bad" role="alert">{p}</div>)}
      <div className="tiles">
        <Tile name="Firing" value={ofState("firing")} under={`${ofState("inactive")} ended lately`} />
        <Tile name="Pending" value={ofState("pending")} under="Hold, but not for long enough yet" />
        <Tile name="Rules" value={all.length} under={`${all.filter((r) => r.type === "alerting").length} alert, ${all.filter((r) => r.type === "recording").length} record`} />
        <Tile name="Rules that fail" value={broken} under={broken > 0 ? "See below why" : "All can be evaluated"} />
      </div>
      <div className="bar">
        <span className="segment" role="group" aria-label="State">
          <button type="button" aria-pressed={chosen === ""} onClick={() => url.set({ state: null })}>All</button>
          {STATES.map((s) => <button key={s} type="button" aria-pressed={chosen === s} onClick={() => url.set({ state: s })}>{WORDS[s]}</button>)}
        </span>
        <input className="field" style={{ width: 280 }} type="search" aria-label="Find" placeholder="Find by name, label or text" value={find} onChange={(e) => url.set({ find: e.target.value }, { replace: true })} />
        <Link className="button" href={url.href("/logs", { q: '{record="alert"}' })}>History</Link>
      </div>
      <section className="panel" aria-label="Alerts">
        <header><h2>Alerts</h2></header>
        <div className="body">
          <Loaded query={alerts}>
            {(list) => {
              const seen = list.filter((a) => (chosen === "" || a.state === chosen) && matches(words, JSON.stringify([a.labels, a.annotations])));
              return seen.length === 0
                ? <Empty text={list.length === 0 ? "No alert holds." : "Nothing matches."} />
                : <AlertTable alerts={seen} now={time.end} />;
            }}
          </Loaded>
        </div>
      </section>
      <Loaded query={rules}>
        {({ groups }) => groups.length === 0 ? (
          <section className="panel" aria-label="Rules">
            <Empty text="No rules yet. Put Prometheus' rule files into the directory rules of the data directory, or name another with --rules-dir." />
          </section>
        ) : groups.map((g) => <Group key={`${g.file};${g.name}`} group={g} state={chosen} words={words} now={time.end} />)}
      </Loaded>
    </Page>
  );
}

function Tile({ name, value, under }: { name: string; value: number; under: string }) {
  return (
    <section className="panel tile" aria-label={name}>
      <div className="label">{name}</div>
      <div className="value">{value}</div>
      <div className="under">{under}</div>
    </section>
  );
}

function AlertTable({ alerts, now }: { alerts: Alert[]; now: number }) {
  return (
    <table>
      <thead><tr><th style={{ width: 96 }}>State</th><th>Alert</th><th>Since</th><th className="num">Value</th><th style={{ width: "36%" }}>Summary</th></tr></thead>
      <tbody>
        {alerts.map((a) => {
          const { alertname = "", ...labels } = a.labels;
          const text = labelText(labels);
          return (
            <tr key={labelText(a.labels)}>
              <td><Badge tone={a.state === "inactive" ? "idle" : TONES[a.state]}>{a.state === "inactive" ? "Ended" : WORDS[a.state]}</Badge></td>
              <td><strong>{alertname}</strong><div className="mono muted" style={{ overflowWrap: "anywhere" }}>{text === "value" ? "" : text}</div></td>
              <td className="nowrap" title={a.resolvedAt ?? a.activeAt}>{formatAge(a.resolvedAt ?? a.activeAt, now)}</td>
              <td className="num">{formatNumber(Number(a.value.replace("Inf", "Infinity")))}</td>
              <td style={{ overflowWrap: "anywhere" }}>{summary(a.annotations)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

function Group({ group, state, words, now }: { group: RuleGroup; state: string; words: string[]; now: number }) {
  const seen = group.rules.filter((r) => {
    const fits = state === "" || (r.type === "alerting" && r.state === state);
    return fits && matches(words, JSON.stringify([group.name, r.name, r.query, r.labels]));
  });
  if (seen.length === 0) return null;
  return (
    <section className="panel" aria-label={`Rules of ${group.name}`}>
      <header>
        <h2>{group.name}</h2>
        <span className="muted cut">{group.file}</span>
        <span className="spring" />
        <span className="muted nowrap">every {formatDuration(group.interval * 1000)}</span>
      </header>
      <div className="body">
        <table>
          <thead><tr><th style={{ width: 96 }}>State</th><th style={{ width: "26%" }}>Rule</th><th>Expression</th><th>For</th><th>Evaluated</th><th className="num">Took</th></tr></thead>
          <tbody>{seen.map((r, i) => <RuleRow key={`${r.name} ${i}`} rule={r} now={now} />)}</tbody>
        </table>
      </div>
    </section>
  );
}

function RuleRow({ rule, now }: { rule: Rule; now: number }) {
  const url = useUrl();
  const evaluated = rule.lastEvaluation.startsWith("0001") ? undefined : rule.lastEvaluation;
  const labels = labelText(rule.labels);
  return (
    <tr>
      <td>
        {rule.health === "err" ? <Badge tone="bad">Fails</Badge>
          : rule.type === "alerting" ? <Badge tone={TONES[rule.state]}>{WORDS[rule.state]}</Badge>
            : <Badge tone={rule.health === "ok" ? "good" : "idle"}>{rule.health === "ok" ? "Records" : WORDS.unknown}</Badge>}
      </td>
      <td>
        <span style={{ overflowWrap: "anywhere" }}>{rule.name}</span>
        <div className="mono muted" style={{ overflowWrap: "anywhere" }}>{labels === "value" ? "" : labels}</div>
      </td>
      <td style={{ overflowWrap: "anywhere" }}>
        <Link className="mono" href={url.href("/explore", { q: rule.query })}>{rule.query}</Link>
        {rule.type === "alerting" && <div className="muted">{summary(rule.annotations)}</div>}
        {rule.lastError && <div className="notice bad">{rule.lastError}</div>}
      </td>
      <td className="nowrap">{rule.type === "alerting" && rule.duration > 0 ? formatDuration(rule.duration * 1000) : ""}</td>
      <td className="nowrap">{evaluated ? `${formatAge(evaluated, now)} ago` : "–"}</td>
      <td className="num nowrap">{evaluated ? formatDuration(rule.evaluationTime * 1000) : "–"}</td>
    </tr>
  );
}
