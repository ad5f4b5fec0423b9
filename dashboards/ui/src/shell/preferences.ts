/** What belongs to the person rather than to the page: theme and time zone, kept in this browser. */

import { useSyncExternalStore } from "react";

export type Theme = "system" | "light" | "dark";
export type Zone = "local" | "utc";

const listeners = new Set<() => void>();
let version = 0;

function read<T extends string>(key: string, allowed: readonly T[]): T {
  const value = localStorage.getItem(key) as T | null;
  return value && allowed.includes(value) ? value : allowed[0]!;
}

export const theme = (): Theme => read("theme", ["system", "light", "dark"] as const);
export const timeZone = (): Zone => read("zone", ["local", "utc"] as const);
export const prefersUtc = (): boolean => timeZone() === "utc";

/** Puts the theme on the page; charts draw again. */
export function applyTheme(): void {
  document.documentElement.dataset.theme = theme();
  version += 1;
  for (const listener of listeners) listener();
}

export function prefer(key: "theme" | "zone", value: string): void {
  localStorage.setItem(key, value);
  applyTheme();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Changes with every preference: what is drawn from computed colours depends on it. */
export function usePreferences(): number {
  return useSyncExternalStore(subscribe, () => version);
}
