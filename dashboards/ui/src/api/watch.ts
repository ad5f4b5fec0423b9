/**
 * Lists kept current by a Kubernetes watch (list, then a stream from its resourceVersion), shared by all who look at
 * the same path and ended when nobody does. Changes reach React once per animation frame.
 */

import { useMemo, useSyncExternalStore } from "react";
import { ApiError, request } from "./http";
import type { KubeObject } from "./kubernetes";

export interface Watched<T> {
  items: T[];
  loaded: boolean;
  /** Set while the server cannot be reached or refuses; `items` is then what was known last. */
  error: Error | null;
}

interface ListAnswer {
  metadata: { resourceVersion: string };
  items: KubeObject[];
}

interface WatchEvent {
  type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  object: KubeObject & { code?: number; message?: string };
}

const RETRY_MS = 1500;

class Store {
  private readonly objects = new Map<string, KubeObject>();
  private readonly listeners = new Set<() => void>();
  private snapshot: Watched<KubeObject> = { items: [], loaded: false, error: null };
  private abort: AbortController | null = null;
  private drawn = false;

  constructor(
    private readonly path: string,
    private readonly selector: string,
  ) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    if (!this.abort) {
      this.abort = new AbortController();
      void this.run(this.abort.signal);
    }
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size > 0) return;
      this.abort?.abort();
      this.abort = null;
    };
  };

  readonly get = (): Watched<KubeObject> => this.snapshot;

  private changed(patch: Partial<Watched<KubeObject>>): void {
    this.snapshot = { ...this.snapshot, ...patch };
    if (this.drawn) return;
    this.drawn = true;
    requestAnimationFrame(() => {
      this.drawn = false;
      this.snapshot = { ...this.snapshot, items: [...this.objects.values()] };
      for (const listener of this.listeners) listener();
    });
  }

  private async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.follow(await this.list(signal), signal);
      } catch (e) {
        if (signal.aborted) return;
        this.changed({ error: e instanceof Error ? e : new Error(String(e)), loaded: true });
        if (e instanceof ApiError && (e.status === 401 || e.status === 403)) return;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  private url(params: Record<string, string>): string {
    const search = new URLSearchParams(params);
    if (this.selector) search.set("fieldSelector", this.selector);
    return `/k8s${this.path}?${search}`;
  }

  private async list(signal: AbortSignal): Promise<string> {
    const response = await request(this.url({}), { signal });
    const list = (await response.json()) as ListAnswer;
    this.objects.clear();
    for (const o of list.items) this.objects.set(o.metadata.uid, o);
    this.changed({ loaded: true, error: null });
    return list.metadata.resourceVersion;
  }

  /**
   * Follows changes to the end of the stream; a stream that merely ended is taken up again by listing anew. Over a
   * WebSocket, since a browser has six other connections to a host, for all tabs together.
   */
  private follow(version: string, signal: AbortSignal): Promise<void> {
    const url = this.url({ watch: "1", resourceVersion: version, allowWatchBookmarks: "true" });
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${url}`);
    const close = () => socket.close();
    signal.addEventListener("abort", close);
    return new Promise<void>((resolve, reject) => {
      let opened = false;
      socket.onopen = () => (opened = true);
      socket.onmessage = (m: MessageEvent<string>) => {
        if (!this.apply(JSON.parse(m.data) as WatchEvent)) socket.close();
      };
      socket.onclose = () => (opened ? resolve() : reject(new Error("The server does not send changes just now.")));
    }).finally(() => signal.removeEventListener("abort", close));
  }

  /** False when the stream cannot go on, as after compaction. */
  private apply({ type, object }: WatchEvent): boolean {
    if (type === "ERROR") return false;
    if (type === "BOOKMARK") return true;
    if (type === "DELETED") this.objects.delete(object.metadata.uid);
    else this.objects.set(object.metadata.uid, object);
    this.changed({});
    return true;
  }
}

const stores = new Map<string, Store>();

/** `path` below the API server's root, such as `/api/v1/pods`. */
export function useWatch<T extends KubeObject>(path: string, fieldSelector = ""): Watched<T> {
  const store = useMemo(() => {
    const key = `${path}?${fieldSelector}`;
    const known = stores.get(key) ?? new Store(path, fieldSelector);
    stores.set(key, known);
    return known;
  }, [path, fieldSelector]);
  return useSyncExternalStore(store.subscribe, store.get) as Watched<T>;
}
