/** All autoscalers. */

import { Link } from "wouter";
import { useList, type Autoscaler } from "../api/kubernetes";
import { useRange } from "../api/prometheus";
import { Sparkline } from "../chart/sparkline";
import { formatAge } from "../format";
import { Badge } from "../parts/badge";
import { Empty, Loaded } from "../parts/states";
import { Page } from "../shell/page";
import { useUrl } from "../url/params";
import { grid } from "../url/range";
import { useTime } from "../url/time";

export default function Autoscalers() {
  const url = useUrl();
  const time = useTime();
  const list = useList<Autoscaler>("/apis/autoscaling/v2/horizontalpodautoscalers");
  const replicas = useRange("kube_horizontalpodautoscaler_status_current_replicas", grid(time, 60));
  return (
    <Page title="Autoscaling">
      <section className="panel" aria-label="Autoscalers">
        <div className="body">
          <Loaded query={list}>
            {(all) => all.length === 0 ? <Empty text="No HorizontalPodAutoscaler yet." /> : (
              <table>
                <thead><tr><th>Autoscaler</th><th>Namespace</th><th>Scales</th><th>Replicas</th><th>Over time</th><th>Bounds</th><th>Last scaled</th><th>State</th></tr></thead>
                <tbody>
                  {all.map((h) => {
                    const { namespace, name, uid } = h.metadata;
                    const s = replicas.data?.find((r) => r.labels.namespace === namespace && r.labels.horizontalpodautoscaler === name);
                    const limited = h.status?.conditions?.find((c) => c.type === "ScalingLimited" && c.status === "True");
                    const broken = h.status?.conditions?.find((c) => c.type !== "ScalingLimited" && c.status === "False");
                    return (
                      <tr key={uid}>
                        <td><Link href={url.href(`/hpa/${namespace}/${name}`)}>{name}</Link></td>
                        <td>{namespace}</td>
                        <td>{h.spec.scaleTargetRef.kind}/{h.spec.scaleTargetRef.name}</td>
                        <td>{h.status?.currentReplicas ?? 0}{h.status?.desiredReplicas !== h.status?.currentReplicas && ` → ${h.status?.desiredReplicas ?? 0}`}</td>
                        <td><Sparkline values={s?.values ?? []} width={120} /></td>
                        <td>{h.spec.minReplicas ?? 1} – {h.spec.maxReplicas}</td>
                        <td>{formatAge(h.status?.lastScaleTime)}</td>
                        <td>{broken ? <Badge tone="bad">{broken.reason ?? broken.type}</Badge> : limited ? <Badge tone="warn">{limited.reason ?? "Limited"}</Badge> : <Badge tone="good">Able to scale</Badge>}</td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
            )}
          </Loaded>
        </div>
      </section>
    </Page>
  );
}
