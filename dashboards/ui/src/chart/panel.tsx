/** A chart of PromQL expressions over the page's range, with its states. */

import { keepPreviousData, useQueries } from "@tanstack/react-query";
import { useMemo } from "react";
import { Link } from "wouter";
import { rangeQuery, type Labels } from "../api/prometheus";
import type { Unit } from "../format";
import { Empty, Failure, Loading } from "../parts/states";
import { useUrl } from "../url/params";
import { grid } from "../url/range";
import { useTime } from "../url/time";
import { Chart, type Line } from "./chart";

export interface Expression {
  /** PromQL; `$window` becomes a range that fits the step. */
  query: string;
  name(labels: Labels): string;
  color?: string;
  dash?: boolean;
  stepped?: boolean;
}

interface Props {
  title: string;
  expressions: Expression[];
  unit: Unit;
  height?: number;
  /** Seconds a rate needs at least: a few scrapes. */
  window?: number;
  points?: number;
  /** A part of a panel of several: its title stands in the legend. */
  part?: boolean;
}

export function Panel({ title, expressions, unit, height, window = 10, points = 240, part }: Props) {
  const time = useTime();
  const url = useUrl();
  const g = grid(time, points);
  const queries = expressions.map((e) => e.query.replaceAll("$window", `${Math.max(window, g.step * 2)}s`));
  const answers = useQueries({
    queries: queries.map((query) => ({
      queryKey: ["promql-range", query, g.start, g.end, g.step],
      queryFn: ({ signal }: { signal: AbortSignal }) => rangeQuery(query, g, signal),
      placeholderData: keepPreviousData,
    })),
  });
  const versions = answers.map((a) => a.dataUpdatedAt).join();
  const lines = useMemo<Line[]>(
    () =>
      answers.flatMap((a, i) => {
        const e = expressions[i]!;
        return (a.data ?? []).map((s) => ({
          name: e.name(s.labels),
          times: s.times,
          values: s.values,
          ...(e.color ? { color: e.color } : {}),
          ...(e.dash ? { dash: true } : {}),
          ...(e.stepped ? { stepped: true } : {}),
        }));
      }),
    [versions, queries.join("\n")],
  );
  const error = answers.find((a) => a.error)?.error;
  const waiting = answers.some((a) => a.isPending);
  const link = (
    <Link className="button plain small" href={url.href("/explore", { q: queries[0] })} aria-label={`Open ${title} in Explore`}>
      Explore
    </Link>
  );
  const heading = <h3>{title}</h3>;
  const body = error ? (
    <Failure error={error} />
  ) : lines.length > 0 ? (
    <Chart
      title={title}
      lines={lines}
      unit={unit}
      range={time}
      step={g.step}
      onBrush={time.narrow}
      {...(height ? { height } : {})}
      {...(part ? { heading, trailing: link } : {})}
    />
  ) : waiting ? (
    <Loading />
  ) : (
    <Empty text={`${part ? `${title}: no` : "No"} samples in this time range.`} />
  );
  if (part) return body;
  return (
    <section className="panel" aria-label={title}>
      <header>
        <h2>{title}</h2>
        <span className="spring" />
        {link}
      </header>
      <div className="body" style={{ paddingLeft: 0, paddingRight: 0 }}>{body}</div>
    </section>
  );
}
