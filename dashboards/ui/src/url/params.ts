/** The URL is the state of the UI: reading and writing its parameters, and links that keep the time range. */

import { useCallback, useMemo } from "react";
import { useLocation, useSearch } from "wouter";

export type Patch = Record<string, string | null | undefined>;

/** Parameters every page shares; links between pages carry them along. */
const SHARED = ["from", "to", "refresh"];

/** `null`, undefined and empty values leave the URL. */
export function patched(search: string, patch: Patch): string {
  const params = new URLSearchParams(search);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null || value === undefined || value === "") params.delete(name);
    else params.set(name, value);
  }
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

export function kept(search: string): Patch {
  const params = new URLSearchParams(search);
  return Object.fromEntries(SHARED.map((name) => [name, params.get(name)]));
}

export interface Url {
  get(name: string): string | null;
  /** `replace` for what typing and hovering change: back should not undo letter by letter. */
  set(patch: Patch, options?: { replace?: boolean }): void;
  /** A link to another page at the same time range. */
  href(path: string, patch?: Patch): string;
}

export function useUrl(): Url {
  const search = useSearch();
  const [path, navigate] = useLocation();
  const params = useMemo(() => new URLSearchParams(search), [search]);
  const get = useCallback((name: string) => params.get(name), [params]);
  const set = useCallback(
    (patch: Patch, options?: { replace?: boolean }) => {
      // The address as it is now, not as it was drawn: two changes in one moment must not undo each other.
      const now = window.location.search;
      const next = patched(now, patch);
      if (next !== now) navigate(path + next, options);
    },
    [path, navigate],
  );
  const href = useCallback(
    (to: string, patch: Patch = {}) => to + patched("", { ...kept(search), ...patch }),
    [search],
  );
  return useMemo(() => ({ get, set, href }), [get, set, href]);
}
