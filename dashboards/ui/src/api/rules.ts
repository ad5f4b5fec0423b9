/** Rules and their alerts, as the server evaluates them. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { get } from "./http";
import type { Labels } from "./prometheus";

export type AlertState = "firing" | "pending" | "inactive" | "unknown";

export interface Alert {
  labels: Labels;
  annotations: Labels;
  state: AlertState;
  activeAt: string;
  /** When it ended, of one that has ended lately. */
  resolvedAt?: string;
  value: string;
}

interface Shared {
  name: string;
  query: string;
  labels: Labels;
  health: "ok" | "err" | "unknown";
  lastError?: string;
  /** Seconds. */
  evaluationTime: number;
  lastEvaluation: string;
}

export interface AlertingRule extends Shared {
  type: "alerting";
  state: AlertState;
  /** Seconds. */
  duration: number;
  keepFiringFor: number;
  annotations: Labels;
  alerts: Alert[] | null;
}

export interface RecordingRule extends Shared {
  type: "recording";
}

export type Rule = AlertingRule | RecordingRule;

export interface RuleGroup {
  name: string;
  file: string;
  rules: Rule[];
  /** Seconds. */
  interval: number;
  evaluationTime: number;
  lastEvaluation: string;
}

export interface Rules {
  groups: RuleGroup[];
  /** What is wrong with rule files. */
  problems: string[];
}

/** Both are asked again when `time` (milliseconds) moves. */
export function useRules(time: number) {
  return useQuery({
    queryKey: ["rules", Math.floor(time / 1000)],
    queryFn: async ({ signal }): Promise<Rules> => {
      const answer = await get<{ data: { groups: RuleGroup[] }; warnings?: string[] }>("/api/v1/rules", {}, signal);
      return { groups: answer.data.groups, problems: answer.warnings ?? [] };
    },
    placeholderData: keepPreviousData,
  });
}

/** Firing, pending and lately ended alerts. */
export function useAlerts(time: number) {
  return useQuery({
    queryKey: ["alerts", Math.floor(time / 1000)],
    queryFn: async ({ signal }) => {
      const answer = await get<{ data: { alerts: Alert[] } }>("/api/v1/alerts", { resolved: "true" }, signal);
      return answer.data.alerts;
    },
    placeholderData: keepPreviousData,
  });
}
