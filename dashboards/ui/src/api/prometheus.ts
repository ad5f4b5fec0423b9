/** PromQL over HTTP, and the hooks that charts use. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { Grid } from "../url/range";
import { get } from "./http";

export type Labels = Record<string, string>;
type Point = [number, string];

export interface Series {
  labels: Labels;
  /** Seconds. */
  times: number[];
  values: number[];
}

export interface Sample {
  labels: Labels;
  time: number;
  value: number;
}

interface Answer<T> {
  data: { resultType: string; result: T };
  warnings?: string[];
  infos?: string[];
}

function number(text: string): number {
  if (text === "+Inf") return Infinity;
  if (text === "-Inf") return -Infinity;
  return Number(text);
}

export async function rangeQuery(query: string, grid: Grid, signal?: AbortSignal): Promise<Series[]> {
  const answer = await get<Answer<{ metric: Labels; values: Point[] }[]>>(
    "/api/v1/query_range",
    { query, start: grid.start, end: grid.end, step: grid.step },
    signal,
  );
  return answer.data.result.map((s) => ({
    labels: s.metric,
    times: s.values.map((p) => p[0]),
    values: s.values.map((p) => number(p[1])),
  }));
}

export interface Instant {
  type: string;
  samples: Sample[];
  warnings: string[];
}

/** `time` in milliseconds. Scalars and strings come as one sample without labels; of a range, the last points. */
export async function instantQuery(query: string, time?: number, signal?: AbortSignal): Promise<Instant> {
  const answer = await get<Answer<unknown>>(
    "/api/v1/query",
    { query, time: time === undefined ? undefined : time / 1000 },
    signal,
  );
  const { resultType: type, result } = answer.data;
  const warnings = [...(answer.warnings ?? []), ...(answer.infos ?? [])];
  if (type === "vector") {
    const vector = result as { metric: Labels; value: Point }[];
    const samples = vector.map((s) => ({ labels: s.metric, time: s.value[0], value: number(s.value[1]) }));
    return { type, samples, warnings };
  }
  if (type === "matrix") {
    const matrix = result as { metric: Labels; values: Point[] }[];
    const samples = matrix.flatMap((s) =>
      s.values.slice(-1).map((p) => ({ labels: s.metric, time: p[0], value: number(p[1]) })),
    );
    return { type, samples, warnings };
  }
  const point = result as Point;
  return { type, samples: [{ labels: {}, time: point[0], value: number(point[1]) }], warnings };
}

export function useRange(query: string, grid: Grid, enabled = true) {
  return useQuery({
    queryKey: ["promql-range", query, grid.start, grid.end, grid.step],
    queryFn: ({ signal }) => rangeQuery(query, grid, signal),
    placeholderData: keepPreviousData,
    enabled: enabled && query !== "",
  });
}

/** `time` in milliseconds; asked again when it moves. */
export function useInstant(query: string, time: number, enabled = true) {
  const second = Math.floor(time / 1000) * 1000;
  return useQuery({
    queryKey: ["promql", query, second],
    queryFn: ({ signal }) => instantQuery(query, second, signal),
    placeholderData: keepPreviousData,
    enabled: enabled && query !== "",
  });
}

/** `name{a="b"}` as people write it. */
export function labelText(labels: Labels): string {
  const { __name__: name = "", ...rest } = labels;
  const inner = Object.entries(rest)
    .map(([k, v]) => `${k}="${v}"`)
    .join(", ");
  return inner === "" ? name || "value" : `${name}{${inner}}`;
}

/** A quoted string of PromQL and LogQL. */
export function quote(text: string): string {
  return JSON.stringify(text);
}
