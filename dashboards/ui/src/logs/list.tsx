/** Lines of logs, newest at the end, drawn only as far as one sees; a row opens to its fields. */

import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, useState } from "react";
import { Link } from "wouter";
import { formatTime } from "../format";
import { nameColor } from "../chart/colors";
import { point } from "../chart/cursor";
import { useUrl } from "../url/params";
import { lineLevel, type LogLine } from "./ring";

interface Props {
  count: number;
  at(index: number): LogLine | undefined;
  /** Follow the end as lines come. */
  follow: boolean;
  onFollow?(follow: boolean): void;
  /** Words to mark. */
  words?: string[];
  /** The pod of each line, where lines of several are mixed. */
  source?: boolean;
  onFilter?(name: string, value: string, equal: boolean): void;
}

function Marked({ text, words }: { text: string; words: string[] }) {
  if (words.length === 0) return text;
  const pattern = new RegExp(`(${words.map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "gi");
  return text.split(pattern).map((part, i) => (i % 2 ? <mark key={i}>{part}</mark> : part));
}

/** A JSON line says its message first; everything else is shown as it came. */
export function headline(line: LogLine): string {
  if (!line.text.startsWith("{")) {
    return line.labels.target ? `${line.text}${fields(line)}` : line.text;
  }
  try {
    const record = JSON.parse(line.text) as Record<string, unknown>;
    const message = record.msg ?? record.message;
    if (typeof message !== "string") return line.text;
    const rest = Object.entries(record)
      .filter(([k, v]) => !["msg", "message", "level", "time", "ts", "timestamp", "trace_id", "span_id"].includes(k) && typeof v !== "object")
      .map(([k, v]) => `${k}=${String(v)}`);
    return [message, ...rest].join("  ");
  } catch {
    return line.text;
  }
}

const IDENTITY = new Set(["namespace", "pod", "container", "node", "component", "service_name", "level", "detected_level", "log_iostream", "trace_id", "span_id", "target"]);

/** Fields of our own records, which stand beside the message. */
function fields(line: LogLine): string {
  return Object.entries(line.labels).filter(([k]) => !IDENTITY.has(k)).map(([k, v]) => `  ${k}=${v}`).join("");
}

export function LogList({ count, at, follow, onFollow, words = [], source = true, onFilter }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  /** The row just opened, which has to come into sight as a whole. */
  const fresh = useRef<string | null>(null);
  const virtual = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => 24,
    overscan: 20,
    getItemKey: (i) => key(at(i), i),
  });
  const last = key(at(count - 1), count - 1);
  useEffect(() => {
    if (follow && count > 0) virtual.scrollToIndex(count - 1, { align: "end" });
  }, [follow, count, last, virtual]);
  const toggle = (id: string) => {
    const next = new Set(open);
    if (!next.delete(id)) {
      next.add(id);
      fresh.current = id;
      // Who opens a line reads it: it must not move away.
      onFollow?.(false);
    }
    setOpen(next);
  };
  return (
    <div
      ref={scroller}
      className="scroller"
      tabIndex={0}
      role="log"
      aria-live="off"
      aria-label="Log lines"
      onWheel={(e) => {
        // Who scrolls up wants to read; who reaches the end wants to follow again.
        const box = e.currentTarget;
        const end = box.scrollTop + box.clientHeight > box.scrollHeight - 30;
        if (e.deltaY < 0 && follow) onFollow?.(false);
        else if (e.deltaY > 0 && end && !follow) onFollow?.(true);
      }}
      onPointerLeave={() => point(null, scroller)}
    >
      <div className="virtual" style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map((v) => {
          const line = at(v.index);
          if (!line) return null;
          const id = key(line, v.index);
          const level = lineLevel(line);
          const expanded = open.has(id);
          const from = line.labels.pod ?? line.labels.component ?? line.labels.service_name ?? "";
          return (
            <div key={v.index} ref={virtual.measureElement} data-index={v.index} className="row" style={{ top: v.start }}>
              <button
                type="button"
                className={`log-row ${level}${source ? " with-source" : ""}`}
                aria-expanded={expanded}
                onClick={() => toggle(id)}
                onPointerEnter={() => point(line.time, scroller)}
              >
                <span className={`level ${level}`} title={level} />
                <span className="time">{formatTime(line.time, { millis: true })}</span>
                {source && <span className="source" style={{ color: nameColor(from) }} title={from}>{short(from)}</span>}
                <span className="text"><span className="sr">{level} </span><Marked text={headline(line)} words={words} /></span>
              </button>
              {expanded && (
                <div
                  ref={(element) => {
                    if (!element || fresh.current !== id) return;
                    fresh.current = null;
                    // After the list has measured the row; before, its place is another.
                    requestAnimationFrame(() => requestAnimationFrame(() => element.scrollIntoView({ block: "nearest" })));
                  }}
                >
                  <Detail line={line} {...(onFilter ? { onFilter } : {})} />
                </div>
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}

function key(line: LogLine | undefined, index: number): string {
  // Lines of one nanosecond differ by their text or, at last, by their place.
  return line ? `${line.nanos}/${line.labels.pod ?? line.labels.component ?? ""}/${line.text.length}` : String(index);
}

/** `web-6976c8d856-v99vq` → `web-…v99vq`: both ends tell pods apart. */
function short(name: string): string {
  return name.length > 17 ? `${name.slice(0, 10)}…${name.slice(-6)}` : name;
}

function Detail({ line, onFilter }: { line: LogLine; onFilter?: Props["onFilter"] }) {
  const url = useUrl();
  const trace = line.labels.trace_id;
  const { namespace, pod } = line.labels;
  return (
    <div className="log-detail">
      <pre>{line.text}</pre>
      <div className="bar" style={{ marginBottom: 6 }}>
        {trace && <Link className="button small" href={url.href(`/traces/${trace}`, line.labels.span_id ? { span: line.labels.span_id } : {})}>Open trace</Link>}
        {namespace && pod && <Link className="button small" href={url.href(`/pods/${namespace}/${pod}`)}>Open pod</Link>}
        <button type="button" className="button small" onClick={() => void navigator.clipboard.writeText(line.text)}>Copy line</button>
        <span className="muted">{formatTime(line.time, { millis: true, date: true })}</span>
      </div>
      <dl>
        {Object.entries(line.labels).sort(([a], [b]) => a.localeCompare(b)).map(([name, value]) => (
          <div key={name} style={{ display: "contents" }}>
            <dt>{name}</dt>
            <dd>
              {value}
              {onFilter && (
                <>
                  <button type="button" aria-label={`Only ${name} = ${value}`} title="Only this" onClick={() => onFilter(name, value, true)}>+</button>
                  <button type="button" aria-label={`Without ${name} = ${value}`} title="Without this" onClick={() => onFilter(name, value, false)}>−</button>
                </>
              )}
            </dd>
          </div>
        ))}
      </dl>
    </div>
  );
}
