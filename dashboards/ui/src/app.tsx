/** The frame around every page, and which page an address is. */

import { Component, lazy, Suspense, useEffect, useState, type ReactNode } from "react";
import { Route, Switch, useLocation } from "wouter";
import { Empty, Failure, Loading } from "./parts/states";
import { Overview } from "./pages/overview";
import { Side } from "./shell/side";

const Workloads = lazy(() => import("./pages/workloads"));
const PodPage = lazy(() => import("./pages/pod"));
const Explore = lazy(() => import("./pages/explore"));
const Logs = lazy(() => import("./pages/logs"));
const Traces = lazy(() => import("./pages/traces"));
const TracePage = lazy(() => import("./pages/trace"));
const Alerts = lazy(() => import("./pages/alerts"));
const Autoscalers = lazy(() => import("./pages/autoscalers"));
const AutoscalerPage = lazy(() => import("./pages/autoscaler"));
const Palette = lazy(() => import("./shell/palette"));

/** A page that breaks says so and leaves the frame usable. */
class Guard extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state = { error: null as Error | null };
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  override render() {
    return this.state.error ? <Failure error={this.state.error} /> : this.props.children;
  }
}

export function App() {
  const [path] = useLocation();
  const [palette, setPalette] = useState(false);
  useEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "k") {
        e.preventDefault();
        setPalette((open) => !open);
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);
  return (
    <div className="shell">
      <Side path={path} />
      <div className="main">
        <Guard key={path}>
          <Suspense fallback={<Loading />}>
            <Switch>
              <Route path="/"><Overview /></Route>
              <Route path="/workloads"><Workloads /></Route>
              <Route path="/pods/:namespace/:name">{(p) => <PodPage key={`${p.namespace}/${p.name}`} namespace={p.namespace} name={p.name} />}</Route>
              <Route path="/explore"><Explore /></Route>
              <Route path="/logs"><Logs /></Route>
              <Route path="/traces"><Traces /></Route>
              <Route path="/traces/:id">{(p) => <TracePage key={p.id} id={p.id} />}</Route>
              <Route path="/alerts"><Alerts /></Route>
              <Route path="/hpa"><Autoscalers /></Route>
              <Route path="/hpa/:namespace/:name">{(p) => <AutoscalerPage namespace={p.namespace} name={p.name} />}</Route>
              <Route><Empty text="There is no such page." /></Route>
            </Switch>
          </Suspense>
        </Guard>
      </div>
      {palette && <Suspense><Palette close={() => setPalette(false)} /></Suspense>}
    </div>
  );
}
