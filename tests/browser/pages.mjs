// Drives the web UI of a running Binnacle as a person would, with Chromium, in both themes.
//
//   node pages.mjs <login link> <namespace> <pod> <hpa> <output dir>
//
// The pod has to have written log lines and its service to have sent traces; the autoscaler has to have decided.
// Every page has to show its real content; errors on the console, reports of the Content-Security-Policy, requests
// to other hosts, and serious or critical findings of axe are failures. Screenshots go into the output directory.
// Prints `N passed, M failed`; exits with 1 if anything failed. BINNACLE_CHROMIUM names another Chromium.

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [link, namespace, pod, hpa, out] = process.argv.slice(2);
if (!out) {
  console.error("usage: node pages.mjs <login link> <namespace> <pod> <hpa> <output dir>");
  process.exit(2);
}
mkdirSync(out, { recursive: true });
const origin = new URL(link).origin;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WAIT = 30_000;

let passed = 0;
let failed = 0;

async function check(name, body) {
  try {
    await body();
    passed += 1;
    console.log(`ok   ${name}`);
  } catch (e) {
    failed += 1;
    console.log(`FAIL ${name}: ${e.message ?? e}`);
  }
}

function assert(condition, message) {
  if (!condition) throw new Error(message);
}

const browser = await chromium.launch({
  executablePath: process.env.BINNACLE_CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: "reduce" });
// Findings of axe run past the page's own policy, which has no place for a script of ours.
await context.addInitScript(() => {
  window.cspReports = [];
  document.addEventListener("securitypolicyviolation", (e) => window.cspReports.push(`${e.violatedDirective} ${e.blockedURI}`));
});
const page = await context.newPage();
page.setDefaultTimeout(WAIT);
const faults = [];
page.on("console", (m) => m.type() === "error" && faults.push(`console: ${m.text()} ${m.location().url}`));
page.on("pageerror", (e) => faults.push(`page error: ${e.message}`));
page.on("request", (r) => {
  const url = new URL(r.url());
  if (url.protocol.startsWith("http") && url.origin !== origin) faults.push(`request to another host: ${r.url()}`);
});
page.on("websocket", (w) => new URL(w.url()).host !== new URL(origin).host && faults.push(`websocket to another host: ${w.url()}`));

async function clean() {
  const reports = await page.evaluate(() => window.cspReports.splice(0));
  const found = [...faults.splice(0), ...reports.map((r) => `policy: ${r}`)];
  assert(found.length === 0, found.join("; "));
}

async function accessible() {
  // Through the debugger, which no policy of the page concerns.
  await page.evaluate(axe);
  const result = await page.evaluate(() =>
    window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }),
  );
  const bad = result.violations.filter((v) => v.impact === "serious" || v.impact === "critical");
  assert(
    bad.length === 0,
    bad.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target} (${n.any[0]?.message ?? n.failureSummary})`).join(" | ")}`).join("; "),
  );
}

const go = (path) => page.goto(`${origin}/ui${path}`, { waitUntil: "domcontentloaded" });
const see = (selector) => page.locator(selector).first().waitFor({ state: "visible" });
const text = (value) => page.getByText(value).first().waitFor({ state: "visible" });
const drawn = () =>
  page.waitForFunction(() => {
    const canvas = document.querySelector(".uplot canvas");
    if (!canvas || canvas.width === 0) return false;
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 3; i < data.length; i += 4) if (data[i] !== 0) return true;
    return false;
  });

/** Pages, and what only a page that works shows. */
const pages = [
  ["overview", "/", async () => {
    await text("Pods by CPU");
    await see(`section[aria-label="Pods by CPU"] a[href*="/pods/${namespace}/"]`);
    await see('section[aria-label="Nodes"] >> text=Ready');
    await see('section[aria-label="Binnacle\'s memory"] >> text=MiB');
    // A line that is flat has no height, which counts as hidden.
    await page.locator('section[aria-label="Samples taken in"] svg polyline').first().waitFor({ state: "attached" });
  }],
  ["workloads", "/workloads", async () => {
    await see(`a[href*="/pods/${namespace}/${pod}"]`);
    await text(/Deployment\//);
  }],
  ["pod", `/pods/${namespace}/${pod}?from=now-1h`, async () => {
    await page.getByRole("heading", { name: pod }).waitFor();
    await drawn();
    await see(".log-row");
    await see('section[aria-label="Containers"] td');
    await see(".lane .dot");
  }],
  ["pod-start", `/pods/${namespace}/${pod}?view=start`, () => see(".wf-row[data-span]")],
  ["pod-yaml", `/pods/${namespace}/${pod}?view=yaml`, () => text(/kind: Pod/)],
  ["pod-events", `/pods/${namespace}/${pod}?view=events`, () => see('section[aria-label="Events"] td >> text=Started')],
  ["explore", `/explore?q=${encodeURIComponent(`sum by (pod) (rate(container_cpu_usage_seconds_total{namespace="${namespace}"}[30s]))`)}`, async () => {
    await see(".cm-content");
    await drawn();
    await see(".legend button");
  }],
  ["explore-table", "/explore?q=up&tab=table", () => see("td >> text=binnacle")],
  ["explore-error", "/explore?q=sum(", () => see('[role="alert"]')],
  ["logs", `/logs?q=${encodeURIComponent(`{namespace="${namespace}"}`)}`, async () => {
    await see(".log-row");
    await see('section[aria-label="Volume"] rect');
    await page.locator(".log-row").last().click();
    await see(".log-detail dl");
  }],
  ["logs-live", `/logs?q=${encodeURIComponent(`{namespace="${namespace}"}`)}&live=1`, async () => {
    await text("Following");
    await see(".log-row");
  }],
  ["traces", "/traces", () => see('section[aria-label="Traces found"] a[href*="/traces/"]')],
  ["alerts", "/alerts", async () => {
    await see('section[aria-label="Alerts"] >> text=ShopRuns');
    await see('section[aria-label="Alerts"] .badge.bad >> text=Firing');
    await see('section[aria-label="Rules of shop"] a[href*="/explore?q="]');
    await text("Records");
  }],
  ["hpas", "/hpa", () => see(`a[href*="/hpa/${namespace}/${hpa}"]`)],
  ["hpa", `/hpa/${namespace}/${hpa}`, async () => {
    await drawn();
    await see(".reason >> text=/scaled|no metric could be used/");
    await see("text=Open in Explore at that time");
    await see(".chain .step");
  }],
];

/** A page that refreshes answers 404s and aborts of its own making while one leaves it: only a rested page is judged. */
async function visit(name, path, content) {
  await check(name, async () => {
    faults.length = 0;
    await go(path);
    await content();
    await page.waitForFunction(() => !document.querySelector(".spinner"));
    // A refused query is what this page is to show; the browser reports it as an error of the network.
    if (name.startsWith("explore-error")) faults.length = 0;
    await page.screenshot({ path: `${out}/${name}.png` });
    await clean();
  });
  await check(`${name}: accessible`, accessible);
}

await check("login by link", async () => {
  await page.goto(link, { waitUntil: "domcontentloaded" });
  await text("Overview");
  assert(new URL(page.url()).pathname === "/ui/", `at ${page.url()}`);
});

for (const theme of ["light", "dark"]) {
  await page.evaluate((t) => localStorage.setItem("theme", t), theme);
  for (const [name, path, content] of pages) await visit(`${name}-${theme}`, path, content);
  await check(`trace-${theme}: from the list to a waterfall`, async () => {
    await go("/traces?service=" + encodeURIComponent(hpa));
    await see('section[aria-label="Traces found"] a[href*="/traces/"]');
    await page.locator('section[aria-label="Traces found"] a[href*="/traces/"]').first().click();
    await see(".wf-row[data-span]");
    await page.locator(".wf-row[data-span] .label").first().click();
    await see('section[aria-label="Span"] dl');
    await page.screenshot({ path: `${out}/trace-${theme}.png` });
    await clean();
  });
  await check(`trace-${theme}: accessible`, accessible);
}

await check("the time range is in the URL, and back undoes it", async () => {
  await go("/explore?q=up");
  await drawn();
  const box = await page.locator(".u-over").first().boundingBox();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.8, box.y + 60, { steps: 5 });
  await page.mouse.up();
  await page.waitForURL(/from=\d+&to=\d+/);
  await page.goBack();
  await page.waitForURL((url) => !url.search.includes("from="));
});

await check("the editor completes metric names from the server", async () => {
  await go("/explore");
  await page.locator(".cm-content").click();
  await page.keyboard.type("process_resid");
  await see('.cm-tooltip-autocomplete >> text=process_resident_memory_bytes');
});

await check("a live tail pauses and goes on", async () => {
  await go(`/logs?q=${encodeURIComponent(`{namespace="${namespace}"}`)}&live=1`);
  await see(".log-row");
  await page.getByRole("button", { name: "Pause" }).click();
  await text("Paused");
  await page.getByRole("button", { name: /Go on/ }).click();
  await text("Following");
});

await check("alerts are chosen by state, and a rule leads to its query", async () => {
  await go("/alerts");
  await see('section[aria-label="Alerts"] >> text=ShopRunsForLong');
  await page.getByRole("button", { name: "Inactive" }).click();
  await see('section[aria-label="Rules of shop"] >> text=ShopIsHuge');
  await page.waitForFunction(() => !document.body.innerText.includes("ShopRunsForLong"));
  await page.getByRole("button", { name: "All" }).click();
  await page.locator('section[aria-label="Rules of shop"] a[href*="/explore?q=count"]').first().click();
  await page.waitForURL(/explore\?q=count/);
  await drawn();
});

await check("words become LogQL and are marked in the lines", async () => {
  await go("/logs");
  await page.getByRole("searchbox").fill("request -products");
  await page.keyboard.press("Enter");
  await text('{namespace=~".+"} |~ "(?i)request" !~ "(?i)products"');
  await see(".log-row mark");
});

await check("theme and time zone are chosen in the menu", async () => {
  await go("/");
  for (const [choice, at] of [["Dark", "dark"], ["Light", "light"]]) {
    await page.getByRole("button", { name: "Preferences" }).click();
    await page.getByRole("menuitemradio", { name: choice }).click();
    await page.waitForFunction((t) => document.documentElement.dataset.theme === t, at);
  }
  await page.getByRole("button", { name: "Preferences" }).click();
  await page.getByRole("menuitemradio", { name: "UTC" }).click();
  await page.waitForFunction(() => localStorage.getItem("zone") === "utc");
});

await check("the keyboard goes to a pod", async () => {
  await go("/");
  await text("Pods by CPU");
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").fill(`pod ${pod}`);
  await see('li[role="option"] >> text=pod');
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname === `/ui/pods/${namespace}/${pod}`);
});

await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
