// The dialog that gives orders for a server. Orders are JSON to this page's own site, which no page of another site can send.
"use strict";

/** Whom the open dialog is about, as [upstream, server]; null when it is closed. */
let steered = null;
/** The token that was taken last. It is nowhere else: not in a cookie, not in the browser's storage. */
let token = null;
/** An order is on its way. */
let ordering = false;

const dialog = byId("steer");
const path = (names) => `servers/${names.map(encodeURIComponent).join("/")}`;

function refuse(text) {
  setText(byId("steer-refusal"), text);
  byId("steer-refusal").hidden = text === "";
}

/** Writes what is known of the server into the open dialog. */
function showSteer(status) {
  if (steered === null) return;
  const [upstream, name] = steered;
  const server = status.upstreams.find((one) => one.name === upstream)?.servers.find((one) => one.name === name);
  if (server === undefined) return closeSteer();
  const weight = server.weight === server.configured_weight ? `${server.weight}` : `${server.weight}, configured ${server.configured_weight}`;
  const order = server.order ? ` by an operator's order` : "";
  setText(byId("steer-now"), `Now ${server.state}${order}, weight ${weight}, ${count(server.active)} active.`);
  byId("steer-token-form").hidden = status.orders !== "token" || token !== null;
}

function openSteer(upstream, server) {
  steered = [upstream, server];
  setText(byId("steer-title"), `${upstream}/${server}`);
  byId("steer-weight").value = "";
  refuse("");
  ask(false);
  if (last !== null) showSteer(last.status);
  dialog.showModal();
}

function closeSteer() {
  if (dialog.open) dialog.close();
}

/** Shows the question before a server is taken down, or hides it. */
function ask(open) {
  if (steered !== null) setText(byId("steer-question"), `Take ${steered.join("/")} down? It gets no requests until it is brought up.`);
  byId("steer-confirm").hidden = !open;
  byId("steer-orders").hidden = byId("steer-weight-form").hidden = open;
  if (open) byId("steer-no").focus();
}

/** The token to send: the one that was taken, else the one that is written. */
const given = () => token ?? byId("steer-token").value.trim();

async function send(names, order) {
  const headers = { "Content-Type": "application/json" };
  const secret = given();
  if (secret !== "") headers.Authorization = `Bearer ${secret}`;
  const response = await fetch(path(names), {
    method: "POST", headers, body: JSON.stringify(order), signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store",
  });
  if (response.ok) {
    token = secret === "" ? null : secret;
    byId("steer-token").value = "";
    return null;
  }
  // The one that is kept is no longer the right one, as after a restart.
  if (response.status === 401) token = null;
  const text = await response.text();
  try {
    return `${JSON.parse(text).error} (status ${response.status})`;
  } catch {
    return `${text.trim()} (status ${response.status})`;
  }
}

/** Gives the order and closes the dialog, or says why not. */
async function give(order) {
  if (steered === null || ordering) return;
  const names = steered;
  ordering = true;
  refuse("");
  ask(false);
  let refusal;
  try {
    refusal = await send(names, order);
  } catch (error) {
    refusal = `${why(error)}; look whether the order was taken`;
  }
  ordering = false;
  if (refusal === null) {
    setText(byId("news"), `Order taken for ${names.join("/")}`);
    if (steered === names) closeSteer();
    if (paused) turn();
  } else if (steered === names) {
    refuse(`Refused: ${refusal}`);
    if (last !== null) showSteer(last.status);
    if (!byId("steer-token-form").hidden) byId("steer-token").focus();
  } else {
    trouble(`The order for ${names.join("/")} was refused: ${refusal}`);
  }
}

for (const button of byId("steer-orders").querySelectorAll("button")) {
  const state = button.dataset.order;
  button.addEventListener("click", () => (state === "down" ? ask(true) : give({ state })));
}
byId("steer-yes").addEventListener("click", () => give({ state: "down" }));
byId("steer-no").addEventListener("click", () => {
  ask(false);
  dialog.querySelector("[data-order=down]").focus();
});
byId("steer-weight-form").addEventListener("submit", (event) => {
  event.preventDefault();
  give({ weight: byId("steer-weight").valueAsNumber });
});
byId("steer-configured").addEventListener("click", () => give({ weight: null }));
// Enter in the token's field chooses no order.
byId("steer-token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("steer-orders").querySelector("button").focus();
});
byId("steer-close").addEventListener("click", closeSteer);
dialog.addEventListener("close", () => {
  const name = steered === null ? null : `Steer ${steered.join("/")}`;
  steered = null;
  byId("steer-token").value = "";
  const opener = [...document.querySelectorAll("td button")].find((button) => button.getAttribute("aria-label") === name);
  opener?.focus();
});
