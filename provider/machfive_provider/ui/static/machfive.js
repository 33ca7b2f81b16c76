// Keeps the page fresh, opens details beside the table, and talks to Airflow's page around it, if there is one.
// Without it every link and form works as well: the server renders all of it.
import { followTheme, inAirflow, openInAirflow, shareAddress } from "./airflow.js";

const REFRESH_EVERY = 5000; // milliseconds; the server reads MachFive no more often
const $ = (id) => document.getElementById(id);
const content = $("content"), drawer = $("drawer"), updated = $("updated"), pause = $("pause");
const SLOW = 500; // milliseconds after which the page says that it waits for an answer
let paused = false, opener = null, lost = "", waiting = false;

document.documentElement.classList.add("has-script");
followTheme();
shareAddress();
for (const id of ["pause", "refresh"]) $(id).hidden = false;

const relative = (path) => path + location.search;

function setWaiting(whether) {
  waiting = whether;
  document.querySelector("main").setAttribute("aria-busy", String(whether));
  showAge();
}

async function get(address) {
  const slow = setTimeout(() => setWaiting(true), SLOW);
  let response;
  try {
    response = await fetch(address, { headers: { Accept: "text/html" } });
  } finally {
    clearTimeout(slow);
    setWaiting(false);
  }
  if (response.status === 401) lost = "you are logged out: load the page again";
  if (!response.ok) throw new Error(String(response.status));
  return response.text();
}

// The server's clock and the browser's may differ: ages are counted from what the server said.
let readAge = null, receivedAt = 0;
function noteAge(element) {
  const readAt = Number(element.dataset.readAt);
  readAge = readAt ? Number(element.dataset.now) - readAt : null;
  receivedAt = performance.now();
}
function showAge() {
  const age = readAge === null ? null : Math.round(readAge + (performance.now() - receivedAt) / 1000);
  const state = waiting ? "reading MachFive …" : lost || (age === null ? "not read yet" : `updated ${age} s ago`);
  updated.textContent = paused ? `paused, ${state}` : state;
}

async function refresh() {
  try {
    const html = await get(relative("content"));
    const focused = content.contains(document.activeElement) ? document.activeElement.id : "";
    const key = document.activeElement?.dataset?.row;
    const unfolded = content.querySelector("details")?.open;
    content.innerHTML = html;
    if (unfolded) content.querySelector("details")?.setAttribute("open", "");
    const again = key ? content.querySelector(`[data-row="${CSS.escape(key)}"]`) : $(focused);
    if (focused) again?.focus({ preventScroll: true });
    lost = "";
    noteAge($("fresh"));
  } catch (error) {
    lost ||= "Airflow does not answer; trying again";
  }
  showAge();
}

async function openRow(link) {
  const address = new URL(link.href);
  history.replaceState(null, "", address.search);
  shareAddress();
  try {
    drawer.innerHTML = await get(relative("row"));
    drawer.hidden = false;
    opener = link.dataset.row;
    drawer.querySelector("h2").focus();
  } catch (error) {
    location.reload();
  }
}

function closeRow() {
  drawer.hidden = true;
  const search = new URLSearchParams(location.search);
  search.delete("row");
  history.replaceState(null, "", `?${search}`);
  shareAddress();
  if (opener) content.querySelector(`[data-row="${CSS.escape(opener)}"]`)?.focus();
}

async function copy(button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch (error) { // a frame may not have the right to: select it, so that Ctrl+C does it
    getSelection().selectAllChildren(button.previousElementSibling);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = said), 2000);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) return copy(button);
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  if (link.dataset.row) { event.preventDefault(); openRow(link); }
  else if ("close" in link.dataset) { event.preventDefault(); closeRow(); }
  else if ("airflow" in link.dataset && inAirflow()) { event.preventDefault(); openInAirflow(link.href); }
  else if ("download" in link.dataset && inAirflow()) { event.preventDefault(); openInAirflow(link.href, true); }
  else if ("preview" in link.dataset) {
    event.preventDefault();
    try { $("emails").innerHTML = await get(link.href); }
    catch (error) { $("emails").textContent = `The emails could not be read (${error.message}).`; }
    $("emails").scrollIntoView();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !drawer.hidden) closeRow();
});
document.addEventListener("change", (event) => {
  if ("submit" in event.target.dataset) event.target.form.requestSubmit();
});
document.addEventListener("submit", (event) => { // no empty parameters in the address
  for (const field of event.target.elements) field.disabled ||= Boolean(field.name) && !field.value;
});
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  showAge();
});
$("refresh").addEventListener("click", async () => {
  await fetch(relative("refresh"), { method: "POST" });
  refresh();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) refresh(); });

noteAge($("fresh") ?? updated);
showAge();
setInterval(showAge, 1000);
setInterval(() => { if (!paused && !document.hidden) refresh(); }, REFRESH_EVERY);
