/** The way between pages; carries the time range along. */

import { useQuery } from "@tanstack/react-query";
import { Link } from "wouter";
import { get } from "../api/http";
import { useUrl } from "../url/params";

export const PAGES = [
  { path: "/", name: "Overview", icon: "M3 13h7V3H3zm0 8h7v-6H3zm10 0h8V11h-8zm0-18v6h8V3z" },
  { path: "/workloads", name: "Workloads", icon: "M12 2 3 7v10l9 5 9-5V7zm0 2.3L18.6 8 12 11.7 5.4 8zM5 9.7l6 3.4v6.2l-6-3.4z" },
  { path: "/explore", name: "Explore", icon: "M3 19h18v2H3zM4 15l5-6 4 4 6-8 1.6 1.2-7.4 9.9-4-4-3.6 4.3z" },
  { path: "/logs", name: "Logs", icon: "M4 5h16v2H4zm0 4h11v2H4zm0 4h16v2H4zm0 4h8v2H4z" },
  { path: "/traces", name: "Traces", icon: "M3 4h9v3H3zm4 5h9v3H7zm4 5h6v3h-6zm4 5h6v3h-6z" },
  { path: "/alerts", name: "Alerts", icon: "M12 2a6 6 0 0 0-6 6v4.6L4 16v1h16v-1l-2-3.4V8a6 6 0 0 0-6-6zm-2.2 17a2.3 2.3 0 0 0 4.4 0z" },
  { path: "/hpa", name: "Autoscaling", icon: "M4 20V10h4v10zm6 0V4h4v16zm6 0v-7h4v7z" },
] as const;

export function Side({ path }: { path: string }) {
  const url = useUrl();
  const session = useQuery({
    queryKey: ["session"],
    queryFn: ({ signal }) => get<{ user: string; version: string }>("/ui/api/session", {}, signal),
    staleTime: Infinity,
    gcTime: Infinity,
  });
  const at = (p: string) => (p === "/" ? path === "/" : path.startsWith(p) || (p === "/workloads" && path.startsWith("/pods")));
  return (
    <nav className="side" aria-label="Pages">
      <Link className="brand" href={url.href("/")}>
        <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true">
          <circle cx="16" cy="16" r="14" fill="var(--accent)" />
          <path d="M16 5l4 11-4 11-4-11z" fill="var(--on-accent)" />
          <path d="M16 5l4 11h-8z" fill="#ffb020" />
        </svg>
        <span>Binnacle</span>
      </Link>
      {PAGES.map((p) => (
        <Link key={p.path} className="item" href={url.href(p.path)} aria-label={p.name} {...(at(p.path) ? { "aria-current": "page" as const } : {})}>
          <svg width="16" height="16" viewBox="0 0 24 24" fill="currentColor" aria-hidden="true"><path d={p.icon} /></svg>
          <span>{p.name}</span>
        </Link>
      ))}
      <div className="foot">
        <div><kbd>Ctrl</kbd> <kbd>K</kbd> to go anywhere</div>
        {session.data && <div className="cut" style={{ marginTop: 6 }}>{session.data.user}<br />v{session.data.version}</div>}
      </div>
    </nav>
  );
}
