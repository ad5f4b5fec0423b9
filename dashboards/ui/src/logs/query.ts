/** LogQL from what people type and click. */

import { quote } from "../api/prometheus";

export function isLogQl(text: string): boolean {
  return /^[\s(]*(\{|[a-z_]+\s*(by|without)?\s*\()/.test(text) && text.includes("{");
}

/** Whether the query gives numbers rather than lines. */
export function isMetric(text: string): boolean {
  return !text.trim().startsWith("{");
}

/** The stream selector a query begins with. */
export function selectorOf(query: string): string {
  return /^\s*(\{(?:[^}"`]|"(?:[^"\\]|\\.)*"|`[^`]*`)*\})/.exec(query)?.[1] ?? "";
}

/** Texts that a query looks for, to be marked in its lines. */
export function marks(query: string): string[] {
  const out: string[] = [];
  for (const m of query.matchAll(/\|([=~])\s*("(?:[^"\\]|\\.)*"|`[^`]*`)/g)) {
    const text = unquote(m[2]!);
    if (m[1] === "=") out.push(text);
    else if (text.startsWith("(?i)")) out.push(...text.slice(4).split("|").map((t) => t.replace(/\\([^a-zA-Z0-9])/g, "$1")));
  }
  return out.filter((t) => t !== "" && !/\\[a-zA-Z]/.test(t));
}

function unquote(text: string): string {
  if (text.startsWith("`")) return text.slice(1, -1);
  try {
    return JSON.parse(text) as string;
  } catch {
    return "";
  }
}

/** Lines of one pattern only. */
export function ofPattern(query: string, pattern: string): string {
  return `${query} |> ${quote(pattern)}`;
}

/** The query narrowed by one more condition on a label of the record. */
export function withLabel(query: string, name: string, value: string, equal: boolean): string {
  return `${query} | ${name}${equal ? "=" : "!="}${quote(value)}`;
}

export const ofTrace = (id: string) => `{namespace=~".+"} | trace_id=${quote(id)}`;
