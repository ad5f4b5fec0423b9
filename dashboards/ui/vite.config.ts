import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The binary serves this under /ui/, and its paths below that are the page's own state (/ui/pods/a/b): addresses of
// assets have to be absolute, because a relative one would be looked for beside the state.
export default defineConfig({
  base: "/ui/",
  plugins: [react()],
  build: {
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
    // The licences of what is bundled ask to be handed on with it.
    license: { fileName: "third-party-licenses.md" },
  },
});
