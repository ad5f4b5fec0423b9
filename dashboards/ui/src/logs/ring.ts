/**
 * Log lines outside React: a bounded ring that a tail of any speed may write to, drawn once per animation frame.
 * The oldest lines make room for new ones, and their number is known.
 */

import type { Labels } from "../api/prometheus";

export interface LogLine {
  /** Nanoseconds since the epoch, exact. */
  nanos: string;
  /** Milliseconds. */
  time: number;
  text: string;
  labels: Labels;
}

/** How far a line may be out of order. */
const NEAR = 500;

/** Nanoseconds have more digits than a number holds; as texts of one length they compare as numbers do. */
function later(a: LogLine, b: LogLine): boolean {
  return a.nanos.length === b.nanos.length ? a.nanos > b.nanos : a.nanos.length > b.nanos.length;
}

export class LogRing {
  private lines: (LogLine | undefined)[];
  private first = 0;
  private count = 0;
  /** Lines that made room for others. */
  evicted = 0;
  /** Lines the server could not send. */
  dropped = 0;
  private readonly listeners = new Set<() => void>();
  private drawn = false;
  private version = 0;

  constructor(private readonly capacity: number) {
    this.lines = new Array<LogLine | undefined>(capacity);
  }

  get length(): number {
    return this.count;
  }

  /** 0 is the oldest. */
  at(index: number): LogLine | undefined {
    if (index < 0 || index >= this.count) return undefined;
    return this.lines[(this.first + index) % this.capacity];
  }

  push(lines: LogLine[], dropped = 0): void {
    for (const line of lines) {
      if (this.count === this.capacity) {
        this.lines[this.first] = line;
        this.first = (this.first + 1) % this.capacity;
        this.evicted += 1;
      } else {
        this.lines[(this.first + this.count) % this.capacity] = line;
        this.count += 1;
      }
      this.settle();
    }
    this.dropped += dropped;
    this.changed();
  }

  /** Lines of several pods come a little out of order: the newest moves back to its place, if that is near. */
  private settle(): void {
    const slot = (i: number) => (this.first + i) % this.capacity;
    for (let i = this.count - 1; i > 0 && i >= this.count - NEAR; i--) {
      const [a, b] = [slot(i - 1), slot(i)];
      if (!later(this.lines[a]!, this.lines[b]!)) return;
      [this.lines[a], this.lines[b]] = [this.lines[b], this.lines[a]];
    }
  }

  clear(): void {
    this.lines = new Array<LogLine | undefined>(this.capacity);
    this.first = this.count = this.evicted = this.dropped = 0;
    this.changed();
  }

  toArray(): LogLine[] {
    return Array.from({ length: this.count }, (_, i) => this.at(i)!);
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): number => this.version;

  private changed(): void {
    if (this.drawn || this.listeners.size === 0) return;
    this.drawn = true;
    requestAnimationFrame(() => {
      this.drawn = false;
      this.version += 1;
      for (const listener of this.listeners) listener();
    });
  }
}

export type Level = "error" | "warn" | "info" | "debug" | "unknown";

export function levelOf(text: string | undefined): Level {
  const level = text?.toLowerCase() ?? "";
  if (/^(error|err|fatal|critical|crit|panic|alert|emerg)/.test(level)) return "error";
  if (level.startsWith("warn")) return "warn";
  if (level.startsWith("info") || level === "notice") return "info";
  if (/^(debug|trace)/.test(level)) return "debug";
  return "unknown";
}

export function lineLevel(line: LogLine): Level {
  return levelOf(line.labels.detected_level ?? line.labels.level);
}
