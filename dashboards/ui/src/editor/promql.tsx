/** A PromQL editor: colours, errors as one types, and completion asked from the server. */

import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { lintKeymap } from "@codemirror/lint";
import { EditorState, Prec } from "@codemirror/state";
import { EditorView, keymap, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { PromQLExtension } from "@prometheus-io/codemirror-promql";
import { useEffect, useRef } from "react";
import { PromClient } from "./client";

const highlight = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--s3)" },
  { tag: tags.function(tags.variableName), color: "var(--s0)" },
  { tag: tags.labelName, color: "var(--s5)" },
  { tag: tags.string, color: "var(--s2)" },
  { tag: tags.number, color: "var(--s1)" },
  { tag: tags.comment, color: "var(--muted)" },
]);

const look = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "transparent" },
  ".cm-content": { padding: "7px 4px", caretColor: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-placeholder": { color: "var(--muted)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--accent-soft)" },
  ".cm-tooltip": { backgroundColor: "var(--raised)", color: "var(--text)", border: "1px solid var(--line-strong)", borderRadius: "6px" },
  ".cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", maxHeight: "18em" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--on-accent)" },
  ".cm-completionDetail": { color: "inherit", opacity: "0.8" },
});

interface Props {
  value: string;
  onRun(query: string): void;
  onChange?(query: string): void;
}

export default function PromqlEditor({ value, onRun, onChange }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const handlers = useRef({ onRun, onChange });
  useEffect(() => {
    handlers.current = { onRun, onChange };
  });
  useEffect(() => {
    const promql = new PromQLExtension().setComplete({ remote: new PromClient() }).activateLinter(true);
    const run = () => {
      handlers.current.onRun(view.current!.state.doc.toString());
      return true;
    };
    const v = new EditorView({
      parent: host.current!,
      state: EditorState.create({
        doc: value,
        extensions: [
          promql.asExtension(),
          syntaxHighlighting(highlight),
          look,
          history(),
          bracketMatching(),
          closeBrackets(),
          autocompletion(),
          EditorView.lineWrapping,
          placeholder("PromQL, such as rate(http_requests_total[1m])"),
          EditorView.contentAttributes.of({ "aria-label": "PromQL query", "aria-multiline": "true" }),
          EditorView.updateListener.of((u) => u.docChanged && handlers.current.onChange?.(u.state.doc.toString())),
          keymap.of([...closeBracketsKeymap, ...completionKeymap, { key: "Enter", run }, { key: "Shift-Enter", run: (e) => (e.dispatch(e.state.replaceSelection("\n")), true) }, ...defaultKeymap, ...historyKeymap, ...lintKeymap]),
          Prec.highest(keymap.of([{ key: "Mod-Enter", run }])),
        ],
      }),
    });
    view.current = v;
    return () => v.destroy();
    // The text goes in below; a new editor for each would lose the cursor.
  }, []);
  useEffect(() => {
    const v = view.current!;
    const before = v.state.doc.toString();
    if (before !== value) v.dispatch({ changes: { from: 0, to: before.length, insert: value } });
  }, [value]);
  return <div ref={host} className="editor grow" />;
}
