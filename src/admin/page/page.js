// Reads the status every second and writes it into the page. Whatever comes is set as text, never as markup.
"use strict";

const EVERY_MS = 1000;
const PATIENCE_MS = 3000;
const KEPT = 60;
// A sign beside each state's name, so that colour is not all that tells them apart.
const SIGNS = { up: "\u25cf", down: "\u2716", ejected: "\u25b2", draining: "\u25d0", drained: "\u25d1", unchecked: "\u25cb" };

const ORDERS = { drain: "drained by an operator's order", down: "taken down by an operator's order" };

const byId = (id) => document.getElementById(id);
const NUMBER = new Intl.NumberFormat("en");

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawing(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Only what changes is written, so that a screen reader's place and a selection stay.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

const count = (value) => (Number.isFinite(value) ? NUMBER.format(value) : "\u2013");
const percent = (value) => (Number.isFinite(value) ? `${(value * 100).toFixed(1)} %` : "\u2013");

function rate(value) {
  if (!Number.isFinite(value)) return "\u2013";
  return value >= 100 ? NUMBER.format(Math.round(value)) : value.toFixed(1);
}

function time(us) {
  if (!Number.isFinite(us)) return "\u2013";
  if (us < 1000) return `${us} \u00b5s`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms` : `${(us / 1e6).toFixed(2)} s`;
}

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600) % 24} h`;
}

const sum = (counts) => Object.values(counts).reduce((all, one) => all + one, 0);

function kinds(counts) {
  const some = Object.entries(counts).filter(([, number]) => number > 0);
  return some.map(([name, number]) => `${name.replaceAll("_", " ")} ${count(number)}`).join(", ");
}

// Rates from counters.

/** The last status with the time that it came; null at first and after a restart. */
let last = null;
/** Past values of a chart, by its name. */
let series = new Map();

function remember(name, value) {
  const values = series.get(name) ?? [];
  values.push(Number.isFinite(value) ? value : null);
  if (values.length > KEPT) values.shift();
  series.set(name, values);
  return values;
}

/** What a counter gained in a second, given how to find it in a status. */
function gained(status, at, find) {
  if (last === null) return NaN;
  const [now, before] = [find(status), find(last.status)];
  return before === undefined || now < before ? NaN : ((now - before) * 1000) / (at - last.at);
}

// Charts.

function sparkline() {
  const chart = drawing("svg", { viewBox: `0 0 ${KEPT} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
  chart.append(drawing("path", { class: "line" }));
  return chart;
}

function drawLine(chart, values) {
  const top = Math.max(...values, 1e-9);
  let path = "";
  let drawn = false;
  values.forEach((value, index) => {
    if (value !== null) {
      path += `${drawn ? "L" : "M"}${KEPT - values.length + index} ${(19 - (18 * value) / top).toFixed(1)}`;
    }
    drawn = value !== null;
  });
  setAttribute(chart.firstChild, "d", path);
}

function bar() {
  const chart = drawing("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  chart.append(drawing("rect", { class: "slot", width: 100, height: 10 }), drawing("rect", { class: "bar", height: 10, width: 0 }));
  return chart;
}

function drawBar(chart, share) {
  setAttribute(chart.lastChild, "width", String(Number.isFinite(share) ? Math.min(100, share * 100) : 0));
}

// Tables: a row for each key, made once and then kept up to date.

/** Columns are [title, class, chart or null]. The first is the row's heading. */
function table(caption, columns) {
  const heads = columns.map(([title, kind]) => element("th", { scope: "col", role: "columnheader", class: kind }, title));
  const body = element("tbody", { role: "rowgroup" });
  const head = element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads));
  // The roles stay when the narrow layout changes how the table is displayed.
  const whole = element("table", { role: "table" }, element("caption", { class: "unseen" }, caption), head, body);
  return { whole, body, columns, rows: new Map() };
}

function row(of, key) {
  if (of.rows.has(key)) return of.rows.get(key);
  const line = element("tr", { role: "row" });
  const cells = of.columns.map(([title, kind, chart], index) => {
    const text = element("span");
    const detail = element("small");
    const attributes = { class: kind, "data-label": title };
    const cell =
      index === 0
        ? element("th", { ...attributes, scope: "row", role: "rowheader" }, text, detail)
        : element("td", { ...attributes, role: "cell" }, text);
    const picture = chart ? chart() : null;
    if (picture) cell.append(picture);
    if (index > 0) cell.append(detail);
    line.append(cell);
    return { text, detail, picture };
  });
  of.body.append(line);
  of.rows.set(key, cells);
  return cells;
}

const fill = (cells, texts) => texts.forEach((text, index) => setText(cells[index].text, text));

// The parts of the page.

const totals = new Map();

function total(name, text, chartValue) {
  if (!totals.has(name)) {
    const value = element("span");
    const chart = chartValue === undefined ? null : sparkline();
    byId("totals").append(element("div", {}, element("dt", {}, name), element("dd", {}, value, ...(chart ? [chart] : []))));
    totals.set(name, { value, chart });
  }
  const { value, chart } = totals.get(name);
  setText(value, text);
  if (chart) drawLine(chart, remember(`total ${name}`, chartValue));
}

/** The slowest p99 of all servers: what the worst-off clients wait for. */
function worstLatency(status) {
  const all = status.upstreams.flatMap((upstream) => upstream.servers.map((server) => server.recent_latency.p99_us));
  const known = all.filter(Number.isFinite);
  return known.length > 0 ? Math.max(...known) : NaN;
}

function showTotals(status, at) {
  const per = (find) => gained(status, at, find);
  const requests = per((of) => of.totals.requests);
  const errors = per((of) => of.totals.responses["5xx"]);
  const cpu = per((of) => of.process.cpu_s);
  const worst = worstLatency(status);
  total("Requests a second", rate(requests), requests);
  total("5xx a second", rate(errors), errors);
  total("Slowest server's p99", time(worst), worst);
  total("Retries a second", rate(per((of) => of.totals.retries)));
  total("Client connections", `${count(status.totals.connections)}, ${count(status.totals.active)} active`);
  total("Sent a second", Number.isFinite(requests) ? `${rate(per((of) => of.totals.bytes_out) / 1e6)} MB` : "\u2013");
  total("CPU", percent(cpu));
  total("Memory", Number.isFinite(status.process.resident_bytes) ? `${(status.process.resident_bytes / 2 ** 20).toFixed(1)} MiB` : "\u2013");
}

const SERVER_COLUMNS = [
  ["Server", "", null],
  ["State", "text", null],
  ["Weight", "", null],
  ["Share", "", bar],
  ["Requests/s", "", sparkline],
  ["Active", "", null],
  ["Idle", "", null],
  ["p50", "", null],
  ["p90", "", null],
  ["p99", "", sparkline],
  ["Failures", "", null],
  ["Retries", "", null],
  ["Last probe", "text", null],
  ["Orders", "text", null],
];
const upstreamTables = new Map();

function upstreamTable(name) {
  if (!upstreamTables.has(name)) {
    const made = table(`Servers of ${name}`, SERVER_COLUMNS);
    const place = element("section", { "aria-label": `Upstream ${name}` }, element("h2", {}, `Upstream ${name}`), made.whole);
    byId("upstreams").append(place);
    upstreamTables.set(name, made);
  }
  return upstreamTables.get(name);
}

const states = new Map();

/** Says a change once to those who do not see it. */
function tell(name, state, reason) {
  const before = states.get(name);
  states.set(name, state);
  if (before !== undefined && before !== state) setText(byId("news"), `${name} is ${state}: ${reason ?? ""}`);
}

function showState(cell, server, at) {
  setText(cell.text, `${SIGNS[server.state] ?? "?"} ${server.state}`);
  setAttribute(cell.text, "class", `state ${Object.hasOwn(SIGNS, server.state) ? server.state : "unchecked"}`);
  const since = server.since ? `for ${span((at - Date.parse(server.since)) / 1000)}` : "";
  setText(cell.detail, [since, ORDERS[server.order] ?? server.reason].filter(Boolean).join(": "));
  setAttribute(cell.detail, "title", server.since ?? "");
}

function showServer(of, upstream, server, status, at, place) {
  const key = server.name;
  const cells = row(of, key);
  const find = (part) => (from) => from.upstreams[place[0]]?.servers[place[1]]?.[part];
  const requests = gained(status, at, find("requests"));
  const { p50_us, p90_us, p99_us } = server.recent_latency;
  fill(cells, [server.name, "", count(server.weight), percent(server.share ?? NaN), rate(requests), count(server.active), count(server.idle)]);
  setText(cells[0].detail, server.address + (server.backup ? ", backup" : ""));
  showState(cells[1], server, status.at);
  drawBar(cells[3].picture, server.share ?? NaN);
  drawLine(cells[4].picture, remember(`requests ${upstream}/${key}`, requests));
  [p50_us, p90_us, p99_us].forEach((us, index) => setText(cells[7 + index].text, time(us ?? NaN)));
  drawLine(cells[9].picture, remember(`p99 ${upstream}/${key}`, p99_us ?? NaN));
  setText(cells[10].text, count(sum(server.failures)));
  setText(cells[10].detail, kinds(server.failures));
  setText(cells[11].text, count(server.retries ? sum(server.retries) : NaN));
  setText(cells[11].detail, kinds(server.retries ?? {}));
  const probe = server.last_probe;
  setText(cells[12].text, probe ? `${probe.ok ? "\u2713 ok" : "\u2716 failed"}, ${time(probe.took_us)}` : "\u2013");
  setText(cells[12].detail, probe && !probe.ok ? probe.result : "");
  setText(cells[2].detail, server.weight === server.configured_weight ? "" : `configured ${count(server.configured_weight)}`);
  offerOrders(cells[13], upstream, key, status.orders !== "off");
  tell(`${upstream}/${key}`, server.state, server.reason);
}

/** A button that opens the dialog of steer.js. */
function offerOrders(cell, upstream, server, possible) {
  if (cell.text.firstElementChild === null) {
    const button = element("button", { type: "button", "aria-haspopup": "dialog", "aria-label": `Steer ${upstream}/${server}` }, "Steer");
    button.addEventListener("click", () => openSteer(upstream, server));
    cell.text.append(button);
  }
  cell.text.firstElementChild.hidden = !possible;
  setText(cell.detail, possible ? "" : "off");
}

function showUpstreams(status, at) {
  status.upstreams.forEach((upstream, first) => {
    const of = upstreamTable(upstream.name);
    upstream.servers.forEach((server, second) => showServer(of, upstream.name, server, status, at, [first, second]));
  });
}

const SHARD_COLUMNS = [
  ["Shard", "", null],
  ["State", "text", null],
  ["Share", "", bar],
  ["Busy", "", bar],
  ["Requests/s", "", sparkline],
  ["Connections", "", null],
  ["Active", "", null],
];
let shardTable = null;

function showShard(shard, status, at) {
  const cells = row(shardTable, shard.number);
  const requests = gained(status, at, (from) => from.shards[shard.number]?.requests);
  const state = shard.running ? (shard.stalled ? "stalled" : "running") : "not running";
  const sign = { running: "\u25cf", stalled: "\u25b2" }[state] ?? "\u2716";
  fill(cells, [`Shard ${shard.number}`, `${sign} ${state}`, percent(shard.share ?? NaN), percent(shard.busy_share ?? NaN), rate(requests), count(shard.connections), count(shard.active)]);
  setText(cells[0].detail, Number.isFinite(shard.cpu) ? `on CPU ${shard.cpu}` : "not pinned");
  setAttribute(cells[1].text, "class", `state ${{ running: "up", stalled: "stalled" }[state] ?? "down"}`);
  drawBar(cells[2].picture, shard.share ?? NaN);
  drawBar(cells[3].picture, shard.busy_share ?? NaN);
  drawLine(cells[4].picture, remember(`shard ${shard.number}`, requests));
}

function showShards(status, at) {
  if (shardTable === null) {
    shardTable = table("Shards", SHARD_COLUMNS);
    byId("shards").append(shardTable.whole);
  }
  const known = Number.isFinite(status.imbalance);
  setText(byId("imbalance"), known ? `Imbalance ${status.imbalance.toFixed(2)}: requests of the busiest shard to those of the mean one.` : "No requests in the last minute.");
  status.shards.forEach((shard) => showShard(shard, status, at));
}

function showHistory(health) {
  const events = health?.history ?? [];
  const lines = events.map((event) => {
    const when = element("time", { datetime: event.at }, new Date(event.at).toLocaleString());
    return element("li", {}, when, `${event.upstream}/${event.server} ${event.from} \u2192 ${event.to}: ${event.reason}`);
  });
  const list = byId("history");
  const text = lines.map((line) => line.textContent).join("\n");
  if (list.dataset.text !== text) {
    list.replaceChildren(...lines);
    list.dataset.text = text;
  }
  byId("no-history").hidden = lines.length > 0;
  setText(byId("no-history"), health ? "None so far." : "Nobody checks the servers' health: no upstream has health or passive checks.");
}

function showAbout(status) {
  const { version, io, uptime_s, pid, draining } = status;
  const parts = [version, `up ${span(uptime_s)}`, `process ${pid}`, [io.mode, io.flags].filter(Boolean).join(" ")];
  if (draining) parts.unshift("draining");
  setText(byId("about"), parts.join(" \u00b7 "));
}

// After a restart or with other servers, nothing of the old page is worth keeping.
const identity = (status) =>
  JSON.stringify([status.pid, status.started, status.shards.length, status.upstreams.map((one) => [one.name, one.servers.map((server) => server.name)])]);

function forget() {
  last = null;
  series = new Map();
  upstreamTables.clear();
  closeSteer();
  states.clear();
  shardTable = null;
  byId("upstreams").replaceChildren();
  byId("shards").replaceChildren();
}

function show(status, at) {
  if (last !== null && identity(status) !== identity(last.status)) forget();
  showAbout(status);
  showTotals(status, at);
  showUpstreams(status, at);
  showShards(status, at);
  showHistory(status.health);
  showSteer(status);
  last = { status, at };
}

// The clock.

let answered = null;
let paused = false;
let timer = null;

function trouble(text) {
  const place = byId("trouble");
  setText(place, text);
  place.hidden = text === "";
  document.body.classList.toggle("stale", text !== "");
}

async function read() {
  const response = await fetch("status", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const status = await response.json();
  // The proxy's clock: "for 5 s" should not depend on this machine's.
  status.at = Date.parse(response.headers.get("date")) || Date.now();
  return status;
}

function why(error) {
  return error.name === "TimeoutError" ? "it does not answer in time" : error instanceof TypeError ? "it cannot be reached" : String(error.message);
}

async function turn() {
  const start = performance.now();
  let status = null;
  try {
    status = await read();
    answered = start;
    trouble("");
  } catch (error) {
    const age = answered === null ? "" : `, for ${span((performance.now() - answered) / 1000)}`;
    trouble(`No answer from the proxy${age}: ${why(error)}. What is shown is old.`);
  }
  if (status !== null) show(status, start);
  if (!paused) timer = setTimeout(turn, Math.max(0, EVERY_MS - (performance.now() - start)));
}

byId("pause").addEventListener("click", (event) => {
  paused = !paused;
  clearTimeout(timer);
  event.target.setAttribute("aria-pressed", String(paused));
  if (!paused) turn();
});

// Scripts that wait come in order: steer.js is there when this is.
document.addEventListener("DOMContentLoaded", () => turn());
