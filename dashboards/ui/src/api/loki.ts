/** LogQL over HTTP and the live tail over a WebSocket. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { LogLine } from "../logs/ring";
import { get } from "./http";
import type { Labels, Series } from "./prometheus";

interface Stream {
  stream: Labels;
  values: [string, string][];
}

/** Codes for terminals say nothing in a browser; what turns the direction of text makes a line look like another. */
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?)/g;
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** Streams as lines, oldest first. Whole nanoseconds do not fit a number, so they stay text. */
export function flatten(streams: Stream[]): LogLine[] {
  const lines = streams.flatMap((s) =>
    s.values.map(([nanos, text]) => ({
      nanos,
      time: Number(nanos.slice(0, -6)) + Number(nanos.slice(-6)) / 1e6,
      text: text.replace(ANSI, "").replace(CONTROL, "\uFFFD"),
      labels: s.stream,
    })),
  );
  return lines.sort((a, b) => (a.nanos.length - b.nanos.length) || (a.nanos < b.nanos ? -1 : a.nanos > b.nanos ? 1 : 0));
}

export async function logQuery(
  query: string,
  range: { start: number; end: number },
  limit: number,
  signal?: AbortSignal,
  direction: "backward" | "forward" = "backward",
): Promise<LogLine[]> {
  const answer = await get<{ data: { resultType: string; result: Stream[] } }>(
    "/loki/api/v1/query_range",
    { query, start: `${Math.floor(range.start)}000000`, end: `${Math.ceil(range.end)}000000`, limit, direction },
    signal,
  );
  if (answer.data.resultType !== "streams") {
    throw new Error("This is a metric query. Its value is drawn above; lines come from a log query.");
  }
  return flatten(answer.data.result);
}

/** Lines per bucket and level, from `count_over_time`. */
export async function volume(query: string, start: number, end: number, step: number, signal?: AbortSignal): Promise<Series[]> {
  const answer = await get<{ data: { result: { metric: Labels; values: [number, string][] }[] } }>(
    "/loki/api/v1/query_range",
    { query: `sum by (detected_level) (count_over_time(${query} [${step}s]))`, start, end, step },
    signal,
  );
  return answer.data.result.map((s) => ({
    labels: s.metric,
    times: s.values.map((p) => p[0]),
    values: s.values.map((p) => Number(p[1])),
  }));
}

export function useLogs(query: string, range: { start: number; end: number }, limit: number, enabled = true) {
  return useQuery({
    queryKey: ["logql", query, Math.floor(range.start / 1000), Math.floor(range.end / 1000), limit],
    queryFn: ({ signal }) => logQuery(query, range, limit, signal),
    placeholderData: keepPreviousData,
    enabled: enabled && query !== "",
  });
}

/** The search box's words as LogQL; the server knows which fields lines have. */
export function useTranslated(search: string, enabled = true, selector = '{namespace=~".+"}') {
  return useQuery({
    queryKey: ["translate", selector, search],
    queryFn: async ({ signal }) => {
      const answer = await get<{ data: { query: string } }>("/loki/api/v1/translate", { query: selector, search }, signal);
      return answer.data.query;
    },
    placeholderData: keepPreviousData,
    enabled,
  });
}

export interface Pattern {
  pattern: string;
  /** Seconds and lines. */
  samples: [number, number][];
  /** Nanoseconds; known of what came since the server began. */
  first?: string;
}

export interface Patterns {
  data: Pattern[];
  minedSince: string;
}

export function usePatterns(query: string, range: { start: number; end: number }, enabled: boolean) {
  return useQuery({
    queryKey: ["patterns", query, Math.floor(range.start / 10_000), Math.floor(range.end / 10_000)],
    queryFn: ({ signal }) =>
      get<Patterns>(
        "/loki/api/v1/patterns",
        { query, start: `${Math.floor(range.start)}000000`, end: `${Math.ceil(range.end)}000000`, step: "60s", limit: 50 },
        signal,
      ),
    placeholderData: keepPreviousData,
    enabled: enabled && query !== "",
  });
}

export interface TailHandlers {
  lines(lines: LogLine[], dropped: number): void;
  /** `error` is what to show, or null when the connection stands. */
  state(error: string | null): void;
}

const RETRY_MS = 2000;

/** Follows `query`; what it returns ends the tail. A connection that breaks is made again. */
export function tail(query: string, limit: number, handlers: TailHandlers): () => void {
  let socket: WebSocket | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ended = false;
  // Seconds before now where the tail begins; after a break it goes on where it was.
  let start = `${Date.now() - 10 * 60_000}000000`;
  let most = limit;
  const open = () => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const params = new URLSearchParams({ query, limit: String(most), start });
    socket = new WebSocket(`${scheme}://${location.host}/loki/api/v1/tail?${params}`);
    socket.onopen = () => handlers.state(null);
    socket.onmessage = (event) => {
      const frame = JSON.parse(String(event.data)) as { streams?: Stream[]; dropped_total?: number };
      const lines = flatten(frame.streams ?? []);
      const last = lines.at(-1);
      if (last) start = (BigInt(last.nanos) + 1n).toString();
      handlers.lines(lines, frame.dropped_total ?? 0);
    };
    socket.onclose = () => {
      if (ended) return;
      handlers.state("The live tail was cut off; trying again…");
      most = 5000;
      timer = setTimeout(open, RETRY_MS);
    };
  };
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    socket?.close();
  };
}
