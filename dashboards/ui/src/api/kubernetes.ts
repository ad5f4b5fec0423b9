/** The parts of Kubernetes objects that the UI reads. */

import { useQuery } from "@tanstack/react-query";
import { get } from "./http";

export interface Meta {
  name: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: { kind: string; name: string; controller?: boolean }[];
}

export interface KubeObject {
  kind?: string;
  metadata: Meta;
}

export interface Condition {
  type: string;
  status: string;
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
}

interface ContainerState {
  waiting?: { reason?: string; message?: string };
  running?: { startedAt?: string };
  terminated?: { reason?: string; exitCode: number; message?: string; finishedAt?: string };
}

export interface ContainerStatus {
  name: string;
  ready: boolean;
  restartCount: number;
  image: string;
  state?: ContainerState;
  lastState?: ContainerState;
}

export interface Container {
  name: string;
  image: string;
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> };
}

export interface Pod extends KubeObject {
  spec: { nodeName?: string; containers: Container[]; initContainers?: Container[] };
  status?: {
    phase?: string;
    reason?: string;
    message?: string;
    podIP?: string;
    startTime?: string;
    qosClass?: string;
    conditions?: Condition[];
    containerStatuses?: ContainerStatus[];
    initContainerStatuses?: ContainerStatus[];
  };
}

export interface KubeEvent extends KubeObject {
  type?: string;
  reason?: string;
  message?: string;
  count?: number;
  firstTimestamp?: string;
  lastTimestamp?: string;
  eventTime?: string;
  series?: { count?: number; lastObservedTime?: string };
  involvedObject: { kind?: string; namespace?: string; name?: string };
}

export interface Node extends KubeObject {
  spec: { unschedulable?: boolean };
  status?: {
    conditions?: Condition[];
    capacity?: Record<string, string>;
    allocatable?: Record<string, string>;
    nodeInfo?: { kubeletVersion?: string; osImage?: string; kernelVersion?: string };
  };
}

export interface MetricTarget {
  type: string;
  averageUtilization?: number;
  averageValue?: string;
  value?: string;
}

export interface Autoscaler extends KubeObject {
  spec: {
    scaleTargetRef: { kind: string; name: string };
    minReplicas?: number;
    maxReplicas: number;
  };
  status?: {
    currentReplicas?: number;
    desiredReplicas?: number;
    lastScaleTime?: string;
    conditions?: Condition[];
  };
}

/** What `kubectl get pods` calls the status. */
export function podStatus(pod: Pod): string {
  if (pod.metadata.deletionTimestamp) return "Terminating";
  const status = pod.status;
  for (const s of status?.initContainerStatuses ?? []) {
    if (s.state?.terminated?.exitCode === 0) continue;
    const why = s.state?.waiting?.reason ?? s.state?.terminated?.reason;
    if (why && why !== "PodInitializing") return `Init:${why}`;
  }
  for (const s of status?.containerStatuses ?? []) {
    const why = s.state?.waiting?.reason ?? s.state?.terminated?.reason;
    if (why) return why;
  }
  return status?.reason ?? status?.phase ?? "Unknown";
}

export type Tone = "good" | "warn" | "bad" | "idle";

export function statusTone(status: string, ready: boolean): Tone {
  if (status === "Running") return ready ? "good" : "warn";
  if (status === "Succeeded" || status === "Completed") return "idle";
  if (status === "Terminating") return "idle";
  if (/^(Init:)?(Pending|ContainerCreating|PodInitializing)$/.test(status)) return "warn";
  return "bad";
}

export function readiness(pod: Pod): { ready: number; of: number; restarts: number } {
  const all = pod.status?.containerStatuses ?? [];
  return {
    ready: all.filter((s) => s.ready).length,
    of: pod.spec.containers.length,
    restarts: all.reduce((n, s) => n + s.restartCount, 0),
  };
}

/** The thing a person made: a pod of a ReplicaSet belongs to its Deployment. */
export function ownerOf(pod: Pod): { kind: string; name: string } | null {
  const owner = pod.metadata.ownerReferences?.find((o) => o.controller) ?? pod.metadata.ownerReferences?.[0];
  if (!owner) return null;
  const hash = pod.metadata.labels?.["pod-template-hash"];
  if (owner.kind === "ReplicaSet" && hash && owner.name.endsWith(`-${hash}`)) {
    return { kind: "Deployment", name: owner.name.slice(0, -hash.length - 1) };
  }
  return { kind: owner.kind, name: owner.name };
}

export function eventTime(e: KubeEvent): number {
  const text = e.series?.lastObservedTime ?? e.lastTimestamp ?? e.eventTime ?? e.metadata.creationTimestamp;
  return text ? Date.parse(text) : 0;
}

export function eventCount(e: KubeEvent): number {
  return e.series?.count ?? e.count ?? 1;
}

/** A list asked for again every few seconds: for what need not be seen at once. */
export function useList<T>(path: string, every = 5000) {
  return useQuery({
    queryKey: ["k8s", path],
    queryFn: ({ signal }) => get<{ items: T[] }>(`/k8s${path}`, {}, signal),
    select: (list) => list.items,
    refetchInterval: every,
  });
}

export function useObject<T>(path: string, every = 5000) {
  return useQuery({
    queryKey: ["k8s-object", path],
    queryFn: ({ signal }) => get<T>(`/k8s${path}`, {}, signal),
    refetchInterval: every,
  });
}
