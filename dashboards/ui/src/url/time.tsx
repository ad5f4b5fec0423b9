/** The one time range of the page, moving with the clock when it ends now. */

import { useQueryClient } from "@tanstack/react-query";
import { createContext, useContext, useEffect, useMemo, useState, type ReactNode } from "react";
import { useUrl } from "./params";
import { narrowed, resolveRange, type Range } from "./range";

export const REFRESHES = ["off", "2s", "5s", "10s", "30s", "1m"] as const;
const DEFAULT_REFRESH = "5s";

export interface Time extends Range {
  refresh: string;
  setRange(from: string, to: string): void;
  /** To a part of the range, as brushed on a chart (milliseconds). */
  narrow(start: number, end: number): void;
  reload(): void;
}

const Context = createContext<Time | null>(null);

function millis(refresh: string): number {
  const m = /^(\d+)([sm])$/.exec(refresh);
  return m ? Number(m[1]) * (m[2] === "s" ? 1000 : 60_000) : 0;
}

export function TimeProvider({ children }: { children: ReactNode }) {
  const url = useUrl();
  const queries = useQueryClient();
  const [now, setNow] = useState(() => Date.now());
  const from = url.get("from");
  const to = url.get("to");
  const asked = url.get("refresh") ?? DEFAULT_REFRESH;
  const refresh = (REFRESHES as readonly string[]).includes(asked) ? asked : DEFAULT_REFRESH;
  const range = useMemo(() => resolveRange(from, to, now), [from, to, now]);
  useEffect(() => {
    const every = millis(refresh);
    if (!range.live || every === 0) return;
    const timer = setInterval(() => {
      // A tab nobody looks at asks for nothing; and who still waits for answers asks no new questions, which would
      // take the place of the old ones for ever.
      if (!document.hidden && queries.isFetching() === 0) setNow(Date.now());
    }, every);
    return () => clearInterval(timer);
  }, [refresh, range.live, queries]);
  const value = useMemo<Time>(
    () => ({
      ...range,
      refresh,
      setRange: (from, to) => {
        setNow(Date.now());
        url.set({ from, to: to === "now" ? null : to });
      },
      narrow: (start, end) => url.set(narrowed(start, end)),
      reload: () => setNow(Date.now()),
    }),
    [range, refresh, url],
  );
  return <Context.Provider value={value}>{children}</Context.Provider>;
}

export function useTime(): Time {
  const time = useContext(Context);
  if (!time) throw new Error("useTime is called outside TimeProvider");
  return time;
}
