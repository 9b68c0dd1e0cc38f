// The panel: shows the status that the daemon sends, and sends it commands. No library, no request to anywhere else.
"use strict";

const at = (id) => document.getElementById(id);
const WORDS = {
  starting: "Starting", running: "Running", restarting: "One moment", waiting: "Waiting for the camera",
  failed: "No picture", paused: "Paused", panic: "Panic: nothing is shown", stopping: "Stopping",
};
let status = null;
let profilesOf = null; // the profile for which the buttons were last drawn
let retryMs = 500;

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(path, options);
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error || `refused (${answer.status})`);
  return data;
}

async function send(command) {
  try {
    show(await ask("/api/v1/command", command));
    at("error").hidden = true;
    return true;
  } catch (error) {
    at("error").textContent = error.message;
    at("error").hidden = false;
    return false;
  }
}

function text(id, value) {
  const element = at(id);
  if (element.textContent !== value) element.textContent = value;
}

function show(next) {
  const before = status;
  status = next;
  at("state").dataset.state = next.state;
  const percent = next.progress === null ? "" : ` ${Math.round(100 * next.progress)} %`;
  text("state-text", WORDS[next.state] + (next.reason ? `: ${next.reason}` : "") + percent);
  text("fps", next.fps.toFixed(1));
  text("published", next.published_fps.toFixed(1));
  text("latency", next.latency_ms.toFixed(0));
  text("bank", (next.bank_bytes / 2 ** 20).toFixed(1));
  text("source", next.source);
  text("sink", `${next.sink}, ${next.width}×${next.height}`);
  text("engine", `${next.model} on ${next.device} (${next.runtime})` + (next.restarts ? `, restarted ${next.restarts} times` : ""));
  text("frames", `${next.captured} captured, ${next.translated} translated, ${next.published} published`);
  const resting = next.state === "paused";
  at("pause").setAttribute("aria-pressed", String(resting));
  text("pause", resting ? "Resume" : "Pause");
  at("panic").setAttribute("aria-pressed", String(next.state === "panic"));
  text("panic", next.state === "panic" ? "Resume" : "Panic");
  if (!before || before.prompt !== next.prompt) {
    if (document.activeElement !== at("prompt") || !before) at("prompt").value = next.prompt;
  }
  if (!before || before.notes.join("\n") !== next.notes.join("\n")) {
    at("notes").replaceChildren(...next.notes.map((note) => {
      const item = document.createElement("li");
      item.textContent = note;
      return item;
    }));
  }
  if (profilesOf !== next.profile) {
    profilesOf = next.profile;
    drawProfiles();
  }
}

async function drawProfiles() {
  const { profiles } = await ask("/api/v1/profiles");
  const box = at("profiles");
  const focused = document.activeElement?.dataset?.profile;
  box.replaceChildren(...profiles.map((profile) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.profile = profile.id;
    button.setAttribute("aria-pressed", String(profile.current));
    const name = document.createElement("span");
    name.textContent = profile.name;
    const words = document.createElement("small");
    words.textContent = profile.description;
    button.append(name, words);
    button.addEventListener("click", async () => {
      if (await send({ command: "use", profile: profile.id })) at("prompt").value = status.prompt;
    });
    return button;
  }));
  if (focused) box.querySelector(`[data-profile="${CSS.escape(focused)}"]`)?.focus();
}

function listen() {
  const socket = new WebSocket(`ws://${location.host}/api/v1/events`);
  socket.addEventListener("open", () => {
    retryMs = 500;
    at("gone").hidden = true;
    at("picture").src = `/api/v1/picture.mjpeg?${Date.now()}`;
  });
  socket.addEventListener("message", (event) => show(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    at("gone").hidden = false;
    at("state").dataset.state = "gone";
    text("state-text", "Not connected");
    setTimeout(listen, retryMs);
    retryMs = Math.min(5000, retryMs * 2);
  });
}

at("pause").addEventListener("click", () => send({ command: status?.state === "paused" ? "resume" : "pause" }));
at("panic").addEventListener("click", () => send({ command: status?.state === "panic" ? "resume" : "panic" }));
at("forget").addEventListener("click", () => send({ command: "forget" }));
at("prompt-form").addEventListener("submit", (event) => {
  event.preventDefault();
  send({ command: "prompt", prompt: at("prompt").value });
});
listen();
