// The panel: shows the status that the daemon sends, and sends it commands. No library, no request to anywhere else.
"use strict";

const WORDS = {
  starting: "Starting", running: "Running", restarting: "One moment", waiting: "Waiting for the camera",
  failed: "No picture", paused: "Paused", panic: "Panic: nothing is shown", stopping: "Stopping", resting: "Resting",
};
const SLIDERS = [
  ["strength", "Strength", 0.02, 1, 0.01, "how far from the camera's picture"],
  ["fusion_strength", "Fusion", 0, 1, 0.01, "how much of earlier frames is taken over"],
  ["similarity_threshold", "Threshold", -1, 1, 0.01, "how alike features must be for that"],
  ["detail", "Detail", 0, 1, 0.01, "how much of the camera's fine edges the enlarged picture gets"],
  ["transition", "Transition", 0, 5000, 50, "milliseconds from one prompt to the next"],
];
let status = null;
let profilesOf = null; // the profile and the log for which the cards were last drawn
let retryMs = 500;
let logged = -1;
let trial = null; // the look that is tried
const plots = { fps: new Plot(at("fps-plot")), latency: new Plot(at("latency-plot")) };

function send(command) {
  return doing(async () => show(await ask("/api/v1/command", command)));
}

// Into the state by the command, or out of it: decided once the last such press is answered, however quick they come.
let flipped = Promise.resolve();
function flip(state, command) {
  flipped = flipped.then(() => send({ command: status?.state === state ? "resume" : command }));
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
  text("obs", next.obs || "–");
  text("preset-says", next.preset_says);
  drawPreset(next);
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
    at("notes").replaceChildren(...next.notes.map((note) => item(note)));
  }
  if (profilesOf !== next.profile) {
    profilesOf = next.profile;
    drawProfiles();
  }
  if (logged !== next.logged) {
    logged = next.logged;
    drawLog();
    drawSliders();
  }
}

function item(words) {
  const line = document.createElement("li");
  line.textContent = words;
  return line;
}

async function drawLog() {
  const { log } = await ask("/api/v1/log");
  at("log").replaceChildren(...log.reverse().map((one) => item(`${new Date(1000 * one.at).toLocaleTimeString()}  ${one.text}`)));
}

// ------------------------------------------------------------------------------------------------- look and engine

for (const [name, label, low, high, step, hint] of SLIDERS) {
  const row = document.createElement("div");
  const words = document.createElement("label");
  const slider = document.createElement("input");
  const value = document.createElement("output");
  Object.assign(slider, { type: "range", id: `s-${name}`, min: low, max: high, step, title: hint });
  words.htmlFor = slider.id;
  words.textContent = label;
  value.htmlFor = slider.id;
  slider.addEventListener("input", () => { value.textContent = slider.value; });
  slider.addEventListener("change", () => {
    if (name === "transition") at("blend").value = slider.value;
    else doing(async () => show(await ask("/api/v1/look", { [name]: Number(slider.value) })));
  });
  row.append(words, slider, value);
  at("sliders").append(row);
}
at("s-transition").value = at("blend").value;
at("s-transition").nextSibling.textContent = at("blend").value;
at("blend").addEventListener("change", () => {
  at("s-transition").value = at("blend").value;
  at("s-transition").nextSibling.textContent = at("blend").value;
});

async function drawSliders() {
  const [{ look }, { engine }] = await Promise.all([ask("/api/v1/look"), ask("/api/v1/engine")]);
  for (const [name] of SLIDERS.filter(([name]) => name !== "transition")) {
    const slider = at(`s-${name}`);
    if (document.activeElement === slider) continue;
    slider.value = look[name] ?? 0.5;
    slider.nextSibling.textContent = look[name] === null ? "model's own" : String(look[name]);
  }
  if (document.activeElement !== at("framing-picker")) at("framing-picker").value = look.framing ?? "fill";
  const shape = `${engine.width}x${engine.height}`;
  const sizes = [0.5, 0.75, 1, 1.25, 1.5].map((factor) => [engine.width, engine.height].map((side) => Math.max(64, 16 * Math.round(side * factor / 16))).join("x"));
  choices(at("size-picker"), [...new Set(sizes)].map((size) => [size, size.replace("x", " × ")]), shape);
  choices(at("steps-picker"), [1, 2, 3, 4, 6, 8].map((steps) => [String(steps), String(steps)]), String(engine.steps));
}

const PRESETS = [["auto", "Auto"], ["fast", "Fast"], ["balanced", "Balanced"], ["sharp", "Sharp"]];

function drawPreset({ preset, preset_asked }) {
  const [[, auto], ...fixed] = PRESETS;
  const taken = fixed.find(([value]) => value === preset);
  const options = [["auto", preset_asked === "auto" ? `${auto}: ${taken[1]}` : auto], ...fixed];
  if (!preset_asked) options.unshift(["", "Size of its own"]);
  choices(at("preset-picker"), options, preset_asked);
}

function choices(picker, options, chosen) {
  if (document.activeElement === picker) return;
  if (JSON.stringify(options) === JSON.stringify([...picker.options].map((one) => [one.value, one.text]))) {
    picker.value = chosen;
    return;
  }
  picker.replaceChildren(...options.map(([value, words]) => new Option(words, value, false, value === chosen)));
}

async function drawSources() {
  const { sources } = await ask("/api/v1/sources");
  const current = sources.find((one) => status && (status.source === one.name || (one.source === "pattern" && status.source === "test picture")));
  const options = sources.map((one) => [one.source, one.name]);
  if (!current && status) options.unshift(["", status.source]);
  choices(at("source-picker"), options, current ? current.source : "");
}

at("source-box").addEventListener("toggle", () => { if (at("source-box").open) doing(drawSources); });
at("source-picker").addEventListener("change", (event) => { if (event.target.value) send({ command: "source", source: event.target.value }); });
at("framing-picker").addEventListener("change", (event) => doing(async () => show(await ask("/api/v1/look", { framing: event.target.value }))));
at("preset-picker").addEventListener("change", (event) => {
  if (event.target.value) send({ command: "engine", changes: { preset: event.target.value } });
});
at("size-picker").addEventListener("change", (event) => {
  const [width, height] = event.target.value.split("x").map(Number);
  send({ command: "engine", changes: { width, height } });
});
at("steps-picker").addEventListener("change", (event) => send({ command: "engine", changes: { steps: Number(event.target.value) } }));

// ------------------------------------------------------------------------------------------- preview before it is live

async function tryIt(wanted, words) {
  trial = wanted;
  at("trial").hidden = false;
  text("trial-text", `Trying: ${words} …`);
  at("trial-picture").removeAttribute("src");
  const done = await doing(async () => {
    const blob = await ask("/api/v1/try", wanted);
    at("trial-picture").src = `data:image/jpeg;base64,${base64(new Uint8Array(await blob.arrayBuffer()))}`;
    text("trial-text", `${words}: only you see this`);
  });
  if (!done) drop();
}

function drop() {
  trial = null;
  at("trial").hidden = true;
}

async function take() {
  if (!trial) return;
  const prompt = trial.prompt;
  drop();
  await send({ command: "prompt", prompt, transition_ms: Number(at("blend").value) });
}

at("try").addEventListener("click", () => tryIt({ prompt: at("prompt").value }, at("prompt").value));
at("take").addEventListener("click", take);
at("drop").addEventListener("click", drop);

// -------------------------------------------------------------------------------------------------------- the rest

function listen() {
  const socket = new WebSocket(`ws://${location.host}/api/v1/events`, ["vcam", `key.${pageKey}`]);
  socket.addEventListener("open", () => {
    retryMs = 500;
    logged = -1;
    profilesOf = null;
    at("gone").hidden = true;
    doing(() => showLive(at("picture"), "/api/v1/picture.mjpeg"));
  });
  socket.addEventListener("message", (event) => show(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    at("gone").hidden = false;
    at("state").dataset.state = "gone";
    text("state-text", "Not connected");
    if (at("fresh-link").hidden) setTimeout(listen, retryMs);
    retryMs = Math.min(5000, retryMs * 2);
  });
}

setInterval(() => {
  if (!status) return;
  plots.fps.add(status.fps);
  plots.latency.add(status.latency_ms);
}, 1000);

at("pause").addEventListener("click", () => flip("paused", "pause"));
at("panic").addEventListener("click", () => flip("panic", "panic"));
at("forget").addEventListener("click", () => send({ command: "forget" }));
at("show-input").addEventListener("click", () => {
  const shown = at("input-screen").hidden;
  at("input-screen").hidden = !shown;
  at("screens").classList.toggle("both", shown);
  at("show-input").setAttribute("aria-pressed", String(shown));
  if (shown) doing(() => showLive(at("input"), "/api/v1/input.mjpeg"));
  else at("input").removeAttribute("src");
});
at("prompt-form").addEventListener("submit", (event) => {
  event.preventDefault();
  drop();
  send({ command: "prompt", prompt: at("prompt").value, transition_ms: Number(at("blend").value) });
});

const KEYS = { n: () => send({ command: "next" }), b: () => send({ command: "previous" }), f: () => send({ command: "forget" }),
  p: () => at("pause").click(), x: () => at("panic").click(), t: () => at("try").click(), l: take, Escape: drop };
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=range]):not([type=checkbox]), select, textarea, dialog");
  if (event.ctrlKey || event.altKey || event.metaKey || (typing && event.key !== "Escape")) return;
  const number = Number(event.key);
  if (number >= 1 && number <= 9) at("profiles").querySelectorAll("button.use")[number - 1]?.click();
  else KEYS[event.key]?.();
});
if (pageKey) ask("/api/v1/status").then(listen, listen);
else needFreshLink();
