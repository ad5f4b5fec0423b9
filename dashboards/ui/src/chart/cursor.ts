/** The one cursor of a page: the moment (milliseconds) the pointer is at, on whichever chart or lane. */

type Listener = (time: number | null, source: unknown) => void;

const listeners = new Set<Listener>();

export function point(time: number | null, source: unknown): void {
  for (const listener of listeners) listener(time, source);
}

export function onPoint(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
