/** The one time range and its refresh; theme and time zone. */

import { DropdownMenu, Popover } from "radix-ui";
import { useState } from "react";
import { formatTime } from "../format";
import { parseTime } from "../url/range";
import { REFRESHES, useTime } from "../url/time";
import { useUrl } from "../url/params";
import { prefer, theme, timeZone, usePreferences } from "./preferences";

const QUICK = ["1m", "5m", "15m", "30m", "1h", "3h", "6h", "12h", "24h", "2d", "7d", "30d"];

export function TimePicker() {
  const time = useTime();
  const url = useUrl();
  usePreferences();
  const [open, setOpen] = useState(false);
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  const text = time.live
    ? `Last ${time.from.replace("now-", "")}`
    : `${formatTime(time.start, { date: time.end - time.start > 43_200_000 })} – ${formatTime(time.end)}`;
  const bad = (t: string) => parseTime(t.trim(), Date.now()) === null;
  const wrong = bad(from) || bad(to) || parseTime(from.trim(), Date.now())! >= parseTime(to.trim(), Date.now())!;
  const apply = (a: string, b: string) => {
    time.setRange(a, b);
    setOpen(false);
  };
  const absolute = (t: string) => (t.startsWith("now") ? t : String(parseTime(t, Date.now())));
  const zoomOut = () => {
    const half = (time.end - time.start) / 2;
    time.setRange(String(Math.floor(time.start - half)), String(Math.floor(time.end + half)));
  };
  return (
    <div className="bar" style={{ flexWrap: "nowrap" }}>
      <Popover.Root
        open={open}
        onOpenChange={(o) => {
          setOpen(o);
          setFrom(time.live ? time.from : new Date(time.start).toISOString());
          setTo(time.live ? "now" : new Date(time.end).toISOString());
        }}
      >
        <Popover.Trigger className="button" aria-label={`Time range: ${text}`}>{text} ▾</Popover.Trigger>
        <Popover.Portal>
          <Popover.Content className="popover" align="end" sideOffset={5} style={{ width: 300 }}>
            <div className="quick">
              {QUICK.map((q) => (
                <button key={q} type="button" className="button small" aria-pressed={time.from === `now-${q}`} onClick={() => apply(`now-${q}`, "now")}>{q}</button>
              ))}
            </div>
            <form
              style={{ display: "grid", gap: 6, marginTop: 12 }}
              onSubmit={(e) => {
                e.preventDefault();
                if (!wrong) apply(absolute(from.trim()), absolute(to.trim()));
              }}
            >
              <label className="muted">From <input className="field mono" style={{ width: "100%" }} value={from} onChange={(e) => setFrom(e.target.value)} /></label>
              <label className="muted">To <input className="field mono" style={{ width: "100%" }} value={to} onChange={(e) => setTo(e.target.value)} /></label>
              <button className="button primary" disabled={wrong}>Apply</button>
            </form>
          </Popover.Content>
        </Popover.Portal>
      </Popover.Root>
      <button type="button" className="button plain" onClick={zoomOut} aria-label="Zoom out" title="Zoom out">⊖</button>
      {!time.live && <button type="button" className="button plain" onClick={() => time.setRange("now-15m", "now")}>Live</button>}
      <button type="button" className="button plain" onClick={time.reload} aria-label="Reload" title="Reload">↻</button>
      <DropdownMenu.Root>
        <DropdownMenu.Trigger className="button" aria-label={`Refresh every ${time.refresh}`}>{time.refresh} ▾</DropdownMenu.Trigger>
        <DropdownMenu.Portal>
          <DropdownMenu.Content className="menu" align="end" sideOffset={5}>
            <DropdownMenu.RadioGroup value={time.refresh} onValueChange={(v) => url.set({ refresh: v }, { replace: true })}>
              {REFRESHES.map((r) => (
                <DropdownMenu.RadioItem key={r} value={r}><span className="tick">{r === time.refresh ? "✓" : ""}</span>{r}</DropdownMenu.RadioItem>
              ))}
            </DropdownMenu.RadioGroup>
          </DropdownMenu.Content>
        </DropdownMenu.Portal>
      </DropdownMenu.Root>
    </div>
  );
}

const CHOICES = [
  { key: "theme", label: "Theme", values: [["system", "As the system"], ["light", "Light"], ["dark", "Dark"]] },
  { key: "zone", label: "Times", values: [["local", "Local time"], ["utc", "UTC"]] },
] as const;

export function Preferences() {
  usePreferences();
  const now = { theme: theme(), zone: timeZone() };
  return (
    <DropdownMenu.Root>
      <DropdownMenu.Trigger className="button plain" aria-label="Preferences">◐</DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content className="menu" align="end" sideOffset={5}>
          {CHOICES.map((c) => (
            <DropdownMenu.RadioGroup key={c.key} value={now[c.key]} onValueChange={(v) => prefer(c.key, v)}>
              <DropdownMenu.Label className="label">{c.label}</DropdownMenu.Label>
              {c.values.map(([value, name]) => (
                <DropdownMenu.RadioItem key={value} value={value}><span className="tick">{now[c.key] === value ? "✓" : ""}</span>{name}</DropdownMenu.RadioItem>
              ))}
            </DropdownMenu.RadioGroup>
          ))}
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}
