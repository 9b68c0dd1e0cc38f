// What all scripts of the panel share.
"use strict";

function at(id) {
  return document.getElementById(id);
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
  if (answer.ok && answer.headers.get("content-type") === "image/jpeg") return answer.blob();
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error || `refused (${answer.status})`);
  return data;
}

function needFreshLink() {
  localStorage.removeItem("vcam-key");
  at("fresh-link").hidden = false;
}

// An image's address can carry no header, so it carries a key that opens pictures alone, and not for long.
async function showLive(image, path) {
  const { key } = await ask("/api/v1/view-key", {});
  image.src = `${path}?key=${encodeURIComponent(key)}`;
}

function complain(words) {
  at("error").textContent = words;
  at("error").hidden = !words;
}

async function doing(work) {
  try {
    await work();
    complain("");
    return true;
  } catch (error) {
    complain(error.message);
    return false;
  }
}
