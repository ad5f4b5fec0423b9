/** The top of a page (where one is, the time range, preferences) and its scrolling body. */

import { useEffect, type ReactNode } from "react";
import { Link } from "wouter";
import { useUrl, type Patch } from "../url/params";
import { Preferences, TimePicker } from "./controls";

interface Props {
  title: string;
  /** Pages above this one: name, path, parameters. */
  above?: [string, string, Patch?][];
  badge?: ReactNode;
  children: ReactNode;
}

export function Page({ title, above = [], badge, children }: Props) {
  const url = useUrl();
  useEffect(() => {
    document.title = `${title} · Binnacle`;
  }, [title]);
  return (
    <>
      <header className="top">
        <div className="crumbs">
          {above.map(([name, path, patch]) => (
            <span key={name} className="nowrap"><Link href={url.href(path, patch)}>{name}</Link> <span className="muted">/</span></span>
          ))}
          <h1>{title}</h1>
          {badge}
        </div>
        <span className="spring" />
        <TimePicker />
        <Preferences />
      </header>
      <main className="page" tabIndex={-1}>{children}</main>
    </>
  );
}
