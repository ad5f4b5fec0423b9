/** LogQL from what people type and click. */

import { quote } from "../api/prometheus";

/** A text of words becomes line filters on everything; what begins with `{` is LogQL already. */
export function fromWords(words: string, selector = '{namespace=~".+"}'): string {
  const parts = words.match(/-?"[^"]*"|\S+/g) ?? [];
  const filters = parts.map((part) => {
    const not = part.startsWith("-") && part.length > 1;
    const text = (not ? part.slice(1) : part).replace(/^"|"$/g, "");
    return `${not ? "!=" : "|="} ${quote(text)}`;
  });
  return [selector, ...filters].join(" ");
}

export function isLogQl(text: string): boolean {
  return /^[\s(]*(\{|[a-z_]+\s*(by|without)?\s*\()/.test(text) && text.includes("{");
}

/** Whether the query gives numbers rather than lines. */
export function isMetric(text: string): boolean {
  return !text.trim().startsWith("{");
}

/** The query narrowed by one more condition on a label of the record. */
export function withLabel(query: string, name: string, value: string, equal: boolean): string {
  return `${query} | ${name}${equal ? "=" : "!="}${quote(value)}`;
}

export const ofTrace = (id: string) => `{namespace=~".+"} | trace_id=${quote(id)}`;
