/** A live tail into a ring, as a hook. */

import { useEffect, useState, useSyncExternalStore } from "react";
import { tail } from "../api/loki";
import { LogRing, type LogLine } from "./ring";

/** Lines a tab keeps. */
const CAPACITY = 5000;

/** While `on`, lines of `query` fill the ring; paused, the ring stays as it is and the tail goes on behind it. */
export function useTail(query: string, on: boolean, paused: boolean) {
  const [ring] = useState(() => new LogRing(CAPACITY));
  const [waiting] = useState(() => new LogRing(CAPACITY));
  const [error, setError] = useState<string | null>(null);
  useSyncExternalStore(ring.subscribe, ring.snapshot);
  useSyncExternalStore(waiting.subscribe, waiting.snapshot);
  const [gate] = useState(() => ({ paused }));
  useEffect(() => {
    gate.paused = paused;
    if (!paused && waiting.length + waiting.dropped > 0) {
      ring.push(waiting.toArray(), waiting.dropped + waiting.evicted);
      waiting.clear();
    }
  }, [gate, paused, ring, waiting]);
  useEffect(() => {
    ring.clear();
    waiting.clear();
    setError(null);
    if (!on || query === "") return;
    return tail(query, 500, {
      lines: (lines, dropped) => (gate.paused ? waiting : ring).push(lines, dropped),
      state: setError,
    });
  }, [query, on, ring, waiting, gate]);
  return { ring, waiting: waiting.length + waiting.evicted, error };
}

/** Lines found, which stay as they are while somebody reads them; `subject` is what they are about: a new one lets go. */
export function useHeld(found: LogLine[] | undefined, subject: string) {
  const [kept, setKept] = useState<{ subject: string; lines: LogLine[] } | null>(null);
  const held = kept !== null && kept.subject === subject;
  return {
    lines: held ? kept.lines : (found ?? []),
    held,
    hold: (on: boolean) => setKept((before) => (!on ? null : before?.subject === subject ? before : { subject, lines: found ?? [] })),
  };
}
