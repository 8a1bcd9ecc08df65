"use strict";
// Keeps the overview as it is on the server. Whatever is shown comes from an answer: parts are fetched as HTML, the stream of events
// only says when, and moves the bar of the phase that runs. Without this file everything works, by reloading.

const byId = (id) => document.getElementById(id);
const WAIT = 250; // milliseconds in which changes are gathered
let pending = null;
let lastRead = Date.now();

function notice(text) {
  const line = byId("connection");
  line.hidden = !text;
  if (line.textContent !== text) line.textContent = text;
}

async function read(path) {
  const answer = await fetch(path, { headers: { Accept: "text/html" }, redirect: "manual", cache: "no-store" });
  if (answer.type === "opaqueredirect") { location.assign("/login"); return null; }
  if (!answer.ok) throw Object.assign(new Error(`${path} answered ${answer.status}`), { status: answer.status });
  lastRead = Date.now();
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// Takes over the sections that differ.
function take(fresh) {
  if (fresh.title) document.title = fresh.title;
  for (const next of fresh.querySelectorAll("[data-live]")) {
    const old = byId(next.id);
    if (old) replace(old, next);
  }
  tell();
}

// One element takes another's place; what the reader has folded, unfolded or is using stays so.
function replace(old, next) {
  for (const details of old.querySelectorAll("details[data-touched]")) {
    const same = details.id && next.querySelector(`#${details.id}`);
    if (same) { same.open = details.open; same.dataset.touched = "1"; }
  }
  if (old.outerHTML === next.outerHTML) return;
  const place = old.contains(document.activeElement) ? placeOf(document.activeElement) : null;
  const log = byId("log");
  const atEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  old.replaceWith(next);
  if (byId("log") && atEnd) byId("log").scrollTop = byId("log").scrollHeight;
  if (place) { const again = next.querySelector(place); if (again) again.focus({ preventScroll: true }); }
}

function placeOf(element) {
  if (element.id) return `#${element.id}`;
  if (element.matches("details[id] > summary")) return `#${element.parentElement.id} > summary`;
  return element.hasAttribute("href") ? `[href="${CSS.escape(element.getAttribute("href"))}"]` : null;
}

// For those who hear the page: what the deployment is at, whenever that changes. A live region must stay while its text changes.
let told = null;
function tell() {
  const texts = ["h-deployment", "phase"].map((id) => byId(id)?.textContent.trim().replace(/\s+/g, " "));
  const text = texts.filter(Boolean).join(", ");
  if (told !== null && told !== text) byId("said").textContent = text;
  told = text;
}

async function refresh(path) {
  try {
    const fresh = await read(path);
    if (fresh) { take(fresh); notice(""); }
  } catch (failure) {
    const at = new Date(lastRead).toLocaleTimeString();
    const why = failure.status ? `The server cannot tell (it answers ${failure.status})` : "The server does not answer";
    notice(`${why}. What you see is from ${at}; trying again.`);
  }
}

let wanted = null;
function soon(path) {
  if (wanted !== "/") wanted = path; // the overview has all the parts in it
  pending ??= setTimeout(() => { const found = wanted; pending = wanted = null; refresh(found); }, WAIT);
}

function show(found) {
  const section = byId("deployment");
  if (!section || section.dataset.id !== found.id || section.dataset.open !== "yes") { soon("/"); return; }
  if (found.outcome || found.interrupted) { soon("/"); return; }
  const bar = byId("bar"), far = byId("far");
  if (bar) { if (typeof found.percent === "number") bar.value = found.percent; else bar.removeAttribute("value"); }
  if (far) far.textContent = found.text || "";
}

function listen() {
  const section = byId("deployment");
  if (!section) return;
  const after = section.dataset.event ? `?after=${encodeURIComponent(section.dataset.event)}` : "";
  const stream = new EventSource(`/api/update/events${after}`);
  let broken = false;
  stream.addEventListener("open", () => { if (broken) { broken = false; refresh("/"); } });
  stream.addEventListener("error", () => {
    broken = true;
    refresh("/"); // tells whether the server is gone or only the stream
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
  stream.addEventListener("line", (event) => {
    const over = JSON.parse(event.data).kind === "end";
    soon(over ? "/" : "/part/deployment");
    if (over) setTimeout(parts, 1000);
  });
  stream.addEventListener("progress", (event) => show(JSON.parse(event.data)));
  stream.addEventListener("log", (event) => {
    const log = byId("log");
    if (!log) return;
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.append(`\n${JSON.parse(event.data).text}`);
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
}

async function parts() {
  for (const place of document.querySelectorAll("[data-part]")) {
    try {
      const fresh = await read(place.dataset.part);
      const next = place.cloneNode(false);
      if (fresh) { next.append(...fresh.body.childNodes); replace(place, next); }
    } catch (failure) { /* the link to the page stays */ }
  }
}

// Not "toggle": that comes for what is open from the beginning as well.
document.addEventListener("click", (event) => {
  const summary = event.target.closest?.("summary");
  if (summary) summary.parentElement.dataset.touched = "1";
});
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button:not(.quiet)");
  if (button) setTimeout(() => { button.disabled = true; }, 0); // one click, one deployment
});
window.addEventListener("pageshow", () => { for (const it of document.querySelectorAll("button[disabled]")) it.disabled = false; });

if (byId("deployment")) {
  tell();
  listen();
  parts();
  setInterval(() => { if (!document.hidden) refresh("/"); }, 10000);
  setInterval(() => { if (!document.hidden) parts(); }, 60000);
}
