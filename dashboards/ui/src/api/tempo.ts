/** Trace search and traces. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { Span } from "../traces/layout";
import { get } from "./http";

export interface TraceSummary {
  traceID: string;
  rootServiceName: string;
  rootTraceName: string;
  startTimeUnixNano: string;
  durationMs: number;
  spanCount: number;
  errorCount: number;
  serviceStats: Record<string, { spanCount: number }>;
}

export interface TraceSearch {
  service: string;
  name: string;
  minDuration: string;
  start: number;
  end: number;
}

export async function searchTraces(s: TraceSearch, limit: number, signal?: AbortSignal): Promise<TraceSummary[]> {
  const conditions = [
    s.service && `resource.service.name = ${JSON.stringify(s.service)}`,
    s.name && `name = ${JSON.stringify(s.name)}`,
  ].filter(Boolean);
  const answer = await get<{ traces: TraceSummary[] }>(
    "/tempo/api/search",
    {
      q: conditions.length ? `{ ${conditions.join(" && ")} }` : undefined,
      minDuration: s.minDuration || undefined,
      start: Math.floor(s.start / 1000),
      end: Math.ceil(s.end / 1000),
      limit,
    },
    signal,
  );
  return answer.traces;
}

export function useTagValues(tag: string) {
  return useQuery({
    queryKey: ["tag-values", tag],
    queryFn: ({ signal }) => get<{ tagValues: string[] }>(`/tempo/api/search/tag/${tag}/values`, {}, signal),
    select: (a) => a.tagValues,
    staleTime: 30_000,
  });
}

type Value = { stringValue?: string; intValue?: string; boolValue?: boolean; doubleValue?: number };
type Attribute = { key: string; value: Value };
interface Batch {
  resource: { attributes: Attribute[] };
  scopeSpans: {
    spans: {
      spanId: string;
      parentSpanId?: string;
      name: string;
      kind: string;
      startTimeUnixNano: string;
      endTimeUnixNano: string;
      attributes: Attribute[];
      events: { timeUnixNano: string; name: string; attributes: Attribute[] }[];
      status: { code?: string; message?: string };
    }[];
  }[];
}

function attributes(list: Attribute[] | undefined): Record<string, string> {
  return Object.fromEntries(
    (list ?? []).map(({ key, value: v }) => [
      key,
      String(v.stringValue ?? v.intValue ?? v.boolValue ?? v.doubleValue ?? ""),
    ]),
  );
}

/** Milliseconds with fraction: a double holds today's time to a quarter of a microsecond. */
function millis(nanos: string): number {
  return Number(nanos.slice(0, -6)) + Number(nanos.slice(-6)) / 1e6;
}

export function spansOf(batches: Batch[]): Span[] {
  return batches.flatMap((b) => {
    const resource = attributes(b.resource.attributes);
    return b.scopeSpans.flatMap((scope) =>
      scope.spans.map((s) => ({
        id: s.spanId,
        parent: s.parentSpanId ?? null,
        name: s.name,
        service: resource["service.name"] ?? "",
        kind: s.kind.replace("SPAN_KIND_", "").toLowerCase(),
        start: millis(s.startTimeUnixNano),
        end: millis(s.endTimeUnixNano),
        error: s.status.code === "STATUS_CODE_ERROR" ? (s.status.message ?? "error") : null,
        attributes: attributes(s.attributes),
        resource,
        events: s.events.map((e) => ({ time: millis(e.timeUnixNano), name: e.name, attributes: attributes(e.attributes) })),
      })),
    );
  });
}

export function useTrace(id: string) {
  return useQuery({
    queryKey: ["trace", id],
    queryFn: async ({ signal }) => {
      const answer = await get<{ batches: Batch[] }>(`/tempo/api/traces/${encodeURIComponent(id)}`, {}, signal);
      return spansOf(answer.batches);
    },
    enabled: id !== "",
  });
}

export function useTraceSearch(s: TraceSearch, limit: number) {
  return useQuery({
    queryKey: ["traces", { ...s, start: Math.floor(s.start / 1000), end: Math.ceil(s.end / 1000) }, limit],
    queryFn: ({ signal }) => searchTraces(s, limit, signal),
    placeholderData: keepPreviousData,
  });
}
