/**
 * The web UI of Binnacle. It promises: the URL is the state; one time range and one cursor for all signals; nothing is
 * asked of another host. It knows only the public APIs: Kubernetes (through /k8s), Prometheus, Loki and Tempo.
 *
 * The road: main → app (which page) → pages/* → api/* (questions) → chart/*, logs/*, traces/* (answers drawn).
 * url/* holds the state, shell/* the frame, editor/* PromQL, parts/* small shapes. Begin with app.tsx and url/time.tsx.
 */

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Router } from "wouter";
import { ApiError } from "./api/http";
import { App } from "./app";
import { applyTheme } from "./shell/preferences";
import "./style.css";
import { TimeProvider } from "./url/time";

applyTheme();

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // A range that moves asks a new question every few seconds: old answers are not worth their memory.
      gcTime: 20_000,
      staleTime: 2_000,
      refetchOnWindowFocus: false,
      retry: (failures, error) => failures < 1 && !(error instanceof ApiError && error.status >= 400),
    },
  },
});

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <Router base="/ui">
        <TimeProvider>
          <App />
        </TimeProvider>
      </Router>
    </QueryClientProvider>
  </StrictMode>,
);
