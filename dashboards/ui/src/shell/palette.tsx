/** Ctrl-K: go to any page, pod or autoscaler by typing. */

import { Dialog } from "radix-ui";
import { useMemo, useState } from "react";
import { useLocation } from "wouter";
import { useList, type Autoscaler, type Pod } from "../api/kubernetes";
import { useUrl } from "../url/params";
import { PAGES } from "./side";

const SHOWN = 30;

export default function Palette({ close }: { close(): void }) {
  return (
    <Dialog.Root open onOpenChange={close}>
      <Dialog.Portal>
        <Dialog.Overlay className="shade" />
        <Dialog.Content className="palette" aria-describedby={undefined}>
          <Dialog.Title className="sr">Go to</Dialog.Title>
          <Choices close={close} />
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Choices({ close }: { close(): void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [, navigate] = useLocation();
  const url = useUrl();
  const pods = useList<Pod>("/api/v1/pods");
  const scalers = useList<Autoscaler>("/apis/autoscaling/v2/horizontalpodautoscalers");
  const found = useMemo(() => {
    const all = [
      ...PAGES.map((p) => ({ name: p.name as string, kind: "page", path: p.path as string })),
      ...(pods.data ?? []).map(({ metadata: m }) => ({ name: `${m.namespace}/${m.name}`, kind: "pod", path: `/pods/${m.namespace}/${m.name}` })),
      ...(scalers.data ?? []).map(({ metadata: m }) => ({ name: `${m.namespace}/${m.name}`, kind: "autoscaler", path: `/hpa/${m.namespace}/${m.name}` })),
    ];
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return all.filter((c) => words.every((w) => `${c.kind} ${c.name}`.toLowerCase().includes(w))).slice(0, SHOWN);
  }, [text, pods.data, scalers.data]);
  const go = (i: number) => {
    const choice = found[i];
    if (!choice) return;
    navigate(url.href(choice.path));
    close();
  };
  return (
    <>
      <input
        autoFocus
        role="combobox"
        aria-expanded="true"
        aria-controls="choices"
        aria-activedescendant={found[at] ? `choice-${at}` : undefined}
        aria-label="Page, pod or autoscaler"
        placeholder="Page, pod or autoscaler…"
        value={text}
        onChange={(e) => {
          setText(e.target.value);
          setAt(0);
        }}
        onKeyDown={(e) => {
          if (e.key === "ArrowDown") setAt(Math.min(at + 1, found.length - 1));
          else if (e.key === "ArrowUp") setAt(Math.max(at - 1, 0));
          else if (e.key === "Enter") go(at);
          else return;
          e.preventDefault();
        }}
      />
      <ul id="choices" role="listbox" aria-label="Found">
        {found.map((c, i) => (
          <li key={c.path} id={`choice-${i}`} role="option" aria-selected={i === at} onMouseEnter={() => setAt(i)} onClick={() => go(i)}>
            <span className="cut">{c.name}</span>
            <span className="muted">{c.kind}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
