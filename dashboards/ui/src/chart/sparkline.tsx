/** A line without axes, for rows of tables. */

interface Props {
  values: number[];
  width?: number;
  height?: number;
  color?: string;
}

export function Sparkline({ values, width = 84, height = 20, color = "var(--s0)" }: Props) {
  const finite = values.filter(Number.isFinite);
  if (finite.length < 2) return <svg className="spark" width={width} height={height} aria-hidden="true" />;
  const top = Math.max(...finite, 1e-12);
  const x = (i: number) => (i / (values.length - 1)) * width;
  const y = (v: number) => height - 1.5 - (v / top) * (height - 3);
  const points = values.map((v, i) => (Number.isFinite(v) ? `${x(i).toFixed(1)},${y(v).toFixed(1)}` : "")).filter(Boolean);
  const first = points[0]!.split(",")[0];
  const last = points.at(-1)!.split(",")[0];
  return (
    <svg className="spark" width={width} height={height} aria-hidden="true">
      <polygon points={`${first},${height} ${points.join(" ")} ${last},${height}`} fill={color} opacity="0.14" />
      <polyline points={points.join(" ")} fill="none" stroke={color} strokeWidth="1.4" strokeLinejoin="round" />
    </svg>
  );
}
