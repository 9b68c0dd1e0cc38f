// What all scripts of the page share.
"use strict";

function at(id) {
  return document.getElementById(id);
}

function made(tag, words = "", facts = {}) {
  const element = Object.assign(document.createElement(tag), facts);
  if (words) element.textContent = words;
  return element;
}

function text(id, value) {
  const element = at(id);
  if (element.textContent !== value) element.textContent = value;
}

function pressed(id, on) {
  at(id).setAttribute("aria-pressed", String(Boolean(on)));
}

// The key came by a one-time link. No cookie: a browser sends those to every other port of this machine, too.
const pageKey = localStorage.getItem("vcam-key") || "";

async function ask(path, body, method = "POST") {
  const headers = { Authorization: `Bearer ${pageKey}` };
  const options = body === undefined ? { headers } : {
    method, headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(path, options);
  if (answer.status === 401) needFreshLink();
  const kind = answer.headers.get("content-type") ?? "";
  if (answer.ok && kind === "image/jpeg") return answer.blob();
  if (answer.ok && kind.startsWith("application/toml")) return answer.text();
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error || `refused (${answer.status})`);
  return data;
}

function needFreshLink() {
  localStorage.removeItem("vcam-key");
  at("fresh-link").querySelector("code").textContent = `${program()} panel`;
  at("fresh-link").hidden = false;
}

// How `vcam` is called on this machine: as the camera last said.
function program() {
  return localStorage.getItem("vcam-program") || "vcam";
}

function callable(words) {
  return words.replace(/(?<![\w/\\.-])vcam(?= [a-z])/g, program());
}

// An image's address can carry no header, so it carries a key that opens pictures alone, and not for long.
async function showLive(image, path) {
  const { key } = await ask("/api/v1/view-key", {});
  image.src = `${path}?key=${encodeURIComponent(key)}`;
}

function complain(words) {
  at("error").textContent = callable(words);
  at("error").hidden = !words;
}

let deeds = 0;

// Does the work; where it is refused, says so and puts every control back to what is so.
async function doing(work) {
  const mine = ++deeds;
  try {
    await work();
    if (mine === deeds) complain(""); // of a later one something may be said already
    return true;
  } catch (error) {
    complain(error.message);
    document.dispatchEvent(new Event("refused"));
    return false;
  }
}

let ownTrouble = "";

// As doing, for what the page does by itself: what was said of the user's last deed stays to be read.
async function byItself(work) {
  try {
    await work();
    if (ownTrouble && at("error").textContent === ownTrouble) complain("");
    ownTrouble = "";
  } catch (error) {
    complain(error.message);
    ownTrouble = at("error").textContent;
  }
}

async function asAddress(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let letters = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    letters += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return `data:image/jpeg;base64,${btoa(letters)}`;
}

let undoing = null;
let toasting = 0;

// Says what was done, for a while; undo: what takes it back.
function toast(words, undo = null) {
  text("toast-text", words);
  undoing = undo;
  at("undo").hidden = !undo;
  at("toast").hidden = false;
  clearTimeout(toasting);
  toasting = setTimeout(() => { at("toast").hidden = true; }, 12000);
}

// Whoever begins a change takes the last one's Undo away first: its click would undo what it no longer names.
function noUndo() {
  at("toast").hidden = true;
  undoing = null;
}

at("undo").addEventListener("click", () => {
  const undo = undoing;
  noUndo();
  if (undo) doing(undo);
});

async function copyFrom(code, button) {
  await navigator.clipboard.writeText(code.textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}
