/** Kubernetes events as a table, newest first. */

import { Link } from "wouter";
import { eventCount, eventTime, type KubeEvent } from "../api/kubernetes";
import { formatAge, formatTime } from "../format";
import { useUrl } from "../url/params";
import { Badge } from "./badge";
import { Empty } from "./states";

export function EventTable({ events, most, object = true }: { events: KubeEvent[]; most: number; object?: boolean }) {
  const url = useUrl();
  if (events.length === 0) return <Empty text="No events." />;
  const sorted = [...events].sort((a, b) => eventTime(b) - eventTime(a)).slice(0, most);
  return (
    <table>
      <thead><tr><th>Age</th><th>Type</th><th>Reason</th>{object && <th>Object</th>}<th>Message</th></tr></thead>
      <tbody>
        {sorted.map((e) => {
          const of = e.involvedObject;
          const name = `${of.kind ?? ""} ${of.namespace ? `${of.namespace}/` : ""}${of.name ?? ""}`;
          return (
            <tr key={e.metadata.uid}>
              <td className="nowrap" title={formatTime(eventTime(e), { date: true })}>{formatAge(eventTime(e))}{eventCount(e) > 1 && <span className="muted"> ×{eventCount(e)}</span>}</td>
              <td><Badge tone={e.type === "Warning" ? "warn" : "idle"}>{e.type ?? "Normal"}</Badge></td>
              <td className="nowrap">{e.reason}</td>
              {object && <td className="nowrap">{of.kind === "Pod" ? <Link href={url.href(`/pods/${of.namespace}/${of.name}`)}>{of.namespace}/{of.name}</Link> : name}</td>}
              <td style={{ overflowWrap: "anywhere" }}>{e.message}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
