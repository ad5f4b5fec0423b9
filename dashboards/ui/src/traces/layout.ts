/** From spans as they came to the rows of a waterfall. Pure. */

export interface Span {
  id: string;
  parent: string | null;
  name: string;
  service: string;
  kind: string;
  /** Milliseconds with fraction. */
  start: number;
  end: number;
  error: string | null;
  attributes: Record<string, string>;
  resource: Record<string, string>;
  events: { time: number; name: string; attributes: Record<string, string> }[];
}

export interface Row {
  span: Span;
  depth: number;
  /** Spans below it, at any depth. */
  below: number;
}

export interface Layout {
  rows: Row[];
  start: number;
  end: number;
}

/**
 * Depth first, siblings by start. A span whose parent is not there (not yet, or never sent) is a root; spans of a
 * ring of parents, which only a faulty sender makes, are cut open at the earliest. `closed` ids hide what is below.
 */
export function layout(spans: Span[], closed: ReadonlySet<string> = new Set()): Layout {
  const known = new Set(spans.map((s) => s.id));
  const children = new Map<string | null, Span[]>();
  for (const span of spans) {
    const parent = span.parent !== null && span.parent !== span.id && known.has(span.parent) ? span.parent : null;
    const list = children.get(parent);
    if (list) list.push(span);
    else children.set(parent, [span]);
  }
  for (const list of children.values()) list.sort((a, b) => a.start - b.start || a.id.localeCompare(b.id));
  const rows: Row[] = [];
  const seen = new Set<string>();
  const walk = (root: Span) => {
    // A stack of its own: a trace may be deeper than the call stack.
    const open: { row: Row; hidden: boolean; left: Span[] }[] = [];
    const enter = (span: Span, depth: number, hidden: boolean) => {
      seen.add(span.id);
      const row = { span, depth, below: 0 };
      if (!hidden) rows.push(row);
      open.push({ row, hidden: hidden || closed.has(span.id), left: [...(children.get(span.id) ?? [])].reverse() });
    };
    enter(root, 0, false);
    for (let top = open.at(-1); top; top = open.at(-1)) {
      const next = top.left.pop();
      if (next) {
        if (!seen.has(next.id)) enter(next, top.row.depth + 1, top.hidden);
        continue;
      }
      open.pop();
      const above = open.at(-1);
      if (above) above.row.below += top.row.below + 1;
    }
  };
  for (const root of children.get(null) ?? []) walk(root);
  for (const span of [...spans].sort((a, b) => a.start - b.start)) if (!seen.has(span.id)) walk(span);
  let start = Infinity;
  let end = -Infinity;
  for (const s of spans) {
    start = Math.min(start, s.start);
    end = Math.max(end, s.end);
  }
  return { rows, start, end: Math.max(end, start + 0.001) };
}
