// What all scripts of the panel share.
"use strict";

function at(id) {
  return document.getElementById(id);
}

async function ask(path, body, method = "POST") {
  const options = body === undefined ? {} : {
    method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(path, options);
  if (answer.ok && answer.headers.get("content-type") === "image/jpeg") return answer.blob();
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error || `refused (${answer.status})`);
  return data;
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
