/** A strip on the page's time axis: shows the shared cursor, moves it, and brushes, like the charts above it. */

import { useEffect, useRef, useState, type PointerEvent, type ReactNode } from "react";
import { onPoint, point } from "./cursor";

interface Props {
  /** Milliseconds. */
  range: { start: number; end: number };
  height: number;
  label: string;
  onBrush?(start: number, end: number): void;
  children: ReactNode;
}

/** Where a moment lies in a range, in percent; null outside it. */
export function position(time: number, range: { start: number; end: number }): number | null {
  const p = ((time - range.start) / (range.end - range.start)) * 100;
  return p < 0 || p > 100 ? null : p;
}

export function Lane({ range, height, label, onBrush, children }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const needle = useRef<HTMLDivElement>(null);
  const [drag, setDrag] = useState<{ from: number; to: number } | null>(null);
  useEffect(
    () =>
      // Past React: the cursor moves with every pixel of the pointer.
      onPoint((time) => {
        const p = time === null ? null : position(time, range);
        needle.current!.style.display = p === null ? "none" : "block";
        if (p !== null) needle.current!.style.left = `${p}%`;
      }),
    [range.start, range.end],
  );
  const timeAt = (e: PointerEvent) => {
    const box = host.current!.getBoundingClientRect();
    const part = Math.min(Math.max((e.clientX - box.left) / box.width, 0), 1);
    return range.start + part * (range.end - range.start);
  };
  const finish = () => {
    if (drag && Math.abs(drag.to - drag.from) > (range.end - range.start) / 200) onBrush?.(drag.from, drag.to);
    setDrag(null);
  };
  const left = drag ? position(Math.min(drag.from, drag.to), range) : null;
  const right = drag ? position(Math.max(drag.from, drag.to), range) : null;
  return (
    <div
      ref={host}
      className="lane"
      role="group"
      aria-label={label}
      style={{ height }}
      onPointerMove={(e) => {
        point(timeAt(e), host);
        if (drag) setDrag({ ...drag, to: timeAt(e) });
      }}
      onPointerLeave={() => {
        point(null, host);
        if (drag) finish();
      }}
      onPointerDown={(e) => onBrush && e.button === 0 && setDrag({ from: timeAt(e), to: timeAt(e) })}
      onPointerUp={finish}
    >
      {children}
      {left !== null && right !== null && <div className="brush" style={{ left: `${left}%`, width: `${right - left}%` }} />}
      <div ref={needle} className="needle" style={{ display: "none" }} />
    </div>
  );
}
