/** What completion asks the server: names by prefix, with a limit, so that many thousands of names stay quick. */

import type { PrometheusClient } from "@prometheus-io/codemirror-promql";
import { get } from "../api/http";

const LIMIT = 1000;

type Matcher = { name: string; value: string; matchesEmpty?(): boolean; type?: unknown };

function selector(metric?: string, prefix?: string): string | undefined {
  if (prefix) return `{__name__=~${JSON.stringify(`.*${prefix.replace(/[^a-zA-Z0-9_:]/g, "")}.*`)}}`;
  return metric || undefined;
}

async function names(path: string, match: string | undefined): Promise<string[]> {
  try {
    return (await get<{ data: string[] }>(path, { "match[]": match, limit: LIMIT })).data;
  } catch {
    // No proposals while the server does not answer: the query itself will say why.
    return [];
  }
}

export class PromClient implements PrometheusClient {
  labelNames(metric?: string): Promise<string[]> {
    return names("/api/v1/labels", selector(metric));
  }

  labelValues(label: string, metric?: string, _matchers?: Matcher[]): Promise<string[]> {
    return names(`/api/v1/label/${encodeURIComponent(label)}/values`, selector(metric));
  }

  metricNames(prefix?: string): Promise<string[]> {
    return names("/api/v1/label/__name__/values", selector(undefined, prefix));
  }

  async metricMetadata(): Promise<Record<string, { type: string; help: string }[]>> {
    try {
      return (await get<{ data: Record<string, { type: string; help: string }[]> }>("/api/v1/metadata", { limit: LIMIT })).data;
    } catch {
      return {};
    }
  }

  series(): Promise<Map<string, string>[]> {
    return Promise.resolve([]);
  }

  flags(): Promise<Record<string, string>> {
    return Promise.resolve({});
  }
}
