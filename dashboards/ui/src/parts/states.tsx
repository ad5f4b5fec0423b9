/** What stands where content is not: it loads, there is none, it failed. */

import type { ReactNode } from "react";

export function Loading() {
  return (
    <div className="state" role="status">
      <span className="spinner" />
      <span className="sr">Loading</span>
    </div>
  );
}

export function Empty({ text, children }: { text: string; children?: ReactNode }) {
  return (
    <div className="state">
      <span>{text}</span>
      {children}
    </div>
  );
}

export function Failure({ error }: { error: Error }) {
  return (
    <div className="state error" role="alert">
      {error.message}
    </div>
  );
}

interface Query<T> {
  data: T | undefined;
  error: Error | null;
}

/** The states of a query, then its content. */
export function Loaded<T>({ query, children }: { query: Query<T>; children(data: T): ReactNode }) {
  if (query.data !== undefined) return children(query.data);
  if (query.error) return <Failure error={query.error} />;
  return <Loading />;
}
