/** Which kinds of lines there are, how many of each over time, and which are new. */

import { usePatterns, type Pattern } from "../api/loki";
import { Empty, Failure, Loading } from "../parts/states";

interface Props {
  /** A stream selector. */
  query: string;
  range: { start: number; end: number };
  onPick(pattern: string): void;
}

/** A pattern is new when its first line came in the last ten minutes. */
const NEW_MS = 10 * 60_000;

const total = (p: Pattern) => p.samples.reduce((sum, [, n]) => sum + n, 0);

export function isNew(p: Pattern, minedSince: string, now: number): boolean {
  const first = Number((p.first ?? "0").slice(0, -6));
  // What came in the first minute of the server's own life may have been there before.
  return first > now - NEW_MS && first > Number(minedSince.slice(0, -6)) + 60_000;
}

function Bars({ samples, range }: { samples: [number, number][]; range: { start: number; end: number } }) {
  const [from, to] = [range.start / 1000, range.end / 1000];
  const most = Math.max(1, ...samples.map(([, n]) => n));
  const x = (t: number) => ((t - from) / Math.max(1, to - from)) * 120;
  return (
    <svg width="120" height="18" role="img" aria-label={`${samples.length} counts, ${most} at most`}>
      {samples.map(([t, n]) => <rect key={t} x={x(t)} y={18 - (n / most) * 18} width="2" height={(n / most) * 18} fill="currentColor" opacity="0.6" />)}
    </svg>
  );
}

export function PatternList({ query, range, onPick }: Props) {
  const found = usePatterns(query, range, true);
  const all = found.data?.data ?? [];
  return (
    <section className="panel" aria-label="Patterns">
      <header><h2>Patterns</h2><span className="muted">{all.length} kinds of lines</span></header>
      {found.error ? <Failure error={found.error} /> : found.isPending ? <Loading /> : all.length === 0 ? <Empty text="No line of this time range." /> : (
        <div className="body" style={{ maxHeight: 260, overflow: "auto" }}>
          <table>
            <tbody>
              {all.map((p) => (
                <tr key={p.pattern}>
                  <td style={{ textAlign: "right" }}>{total(p)}</td>
                  <td><Bars samples={p.samples} range={range} /></td>
                  <td>{isNew(p, found.data?.minedSince ?? "0", Date.now()) && <b style={{ color: "var(--warn)" }}>new</b>}</td>
                  <td><button type="button" className="button plain mono" style={{ textAlign: "left" }} title="Only these lines" onClick={() => onPick(p.pattern)}>{p.pattern}</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
