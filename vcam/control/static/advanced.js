// Strength and quality in front; behind "Advanced" what most never need: the camera, and how the look is drawn.
"use strict";

const SLIDERS = [
  ["strength", "Strength", 0.02, 1, 0.01, "How far it goes from what the camera sees", "strength"],
  ["detail", "Fine detail", 0, 1, 0.01, "How much of the camera's fine edges comes through", "sliders"],
  ["fusion_strength", "Steadiness", 0, 1, 0.01, "How much is taken over from earlier pictures", "sliders"],
  ["similarity_threshold", "Only where alike", -1, 1, 0.01, "How alike a place must be for that", "sliders"],
  ["transition", "Blend, ms", 0, 5000, 50, "How long one look takes to become the next", "sliders"],
];
const PRESETS = [["auto", "Auto"], ["fast", "Fast"], ["balanced", "Balanced"], ["fine", "Fine"], ["sharp", "Sharp"]];

for (const [name, label, low, high, step, hint, place] of SLIDERS) {
  const row = made("div");
  const slider = made("input", "", { type: "range", id: `s-${name}`, min: low, max: high, step, title: hint });
  const words = made("label", label, { htmlFor: slider.id, title: hint });
  const value = made("output", "", { htmlFor: slider.id });
  slider.addEventListener("input", () => { value.textContent = slider.value; });
  slider.addEventListener("change", () => {
    if (name !== "transition") doing(async () => show(await ask("/api/v1/look", { [name]: Number(slider.value) })));
  });
  row.append(words, slider, value);
  at(place).append(row);
}
at("s-transition").value = 400;
at("s-transition").nextSibling.textContent = "400";

function blend() {
  return Number(at("s-transition").value);
}

// To what is live now; a slider that a hand holds is left alone, but not after a refusal.
async function drawSliders(also) {
  const [{ look, own }, { engine }] = await Promise.all([ask("/api/v1/look"), ask("/api/v1/engine")]);
  for (const [name] of SLIDERS.filter(([name]) => name !== "transition")) {
    const slider = at(`s-${name}`);
    if (!also && document.activeElement === slider && slider.matches(":active")) continue;
    const value = look[name] ?? own[name] ?? 0.5;
    slider.value = value;
    slider.nextSibling.textContent = look[name] === null ? `${value} own` : String(value);
    slider.nextSibling.title = look[name] === null ? "The model's own" : "";
  }
  if (also || document.activeElement !== at("framing-picker")) at("framing-picker").value = look.framing ?? "fill";
  if (also || document.activeElement !== at("region-picker")) at("region-picker").value = look.region;
  at("elsewhere-picker").disabled = look.region === "all";
  choices(at("elsewhere-picker"), elsewheres(look.elsewhere), look.elsewhere, also);
  choices(at("size-picker"), engine.sizes.map(([width, height]) => [`${width}x${height}`, `${width} × ${height}`]), `${engine.width}x${engine.height}`, also);
  choices(at("steps-picker"), [1, 2, 3, 4, 6, 8].map((steps) => [String(steps), String(steps)]), String(engine.steps), also);
}

// What may be shown where the style is not; a picture's file is named in a profile or on the command line.
function elsewheres(current) {
  const options = [["camera", "The camera's picture"], ["blur", "The same, blurred"]];
  return options.some(([value]) => value === current) ? options : [...options, [current, current.split(/[\\/]/).pop()]];
}

for (const [value, words] of PRESETS) {
  const label = made("label");
  const choice = made("input", "", { type: "radio", name: "preset", value, className: "unseen", id: `preset-${value}` });
  choice.addEventListener("change", () => send({ command: "engine", changes: { preset: value } }));
  label.append(choice, words);
  at("presets").append(label);
}

function drawPreset({ preset, preset_asked, preset_says }) {
  const taken = PRESETS.find(([value]) => value === preset)?.[1];
  for (const [value] of PRESETS) at(`preset-${value}`).checked = value === preset_asked;
  text("preset-says", preset_says || (preset_asked === "auto" && taken ? `Auto took ${taken}` : preset_asked ? "" : "A size of its own"));
}

// What is sent: mirrored at once. No camera changes its size while a program shows it: with another it begins again.
const SENT = [[640, 480], [960, 540], [1280, 720], [1920, 1080]];

function drawSent({ width, height, mirror }) {
  sayHowSent();
  if (document.activeElement !== at("mirror") || !at("mirror").matches(":active")) at("mirror").checked = mirror;
  const sizes = SENT.some(([wide, high]) => wide === width && high === height) ? SENT : [[width, height], ...SENT];
  const now = `${width}x${height}`;
  if (at("sent-picker").dataset.now === now) return;
  at("sent-picker").dataset.now = now;
  choices(at("sent-picker"), sizes.map(([wide, high]) => [`${wide}x${high}`, `${wide} × ${high}`]), now, true);
  sayHowSent();
}

function sayHowSent() {
  const { value, dataset } = at("sent-picker");
  at("sent-says").hidden = !dataset.now || value === dataset.now;
  text("send-at", `Begin again at ${value.replace("x", " × ")}`);
  const why = status && whyNotNow(status);
  at("send-at").disabled = Boolean(why);
  text("sent-why", why || "The camera begins again for it: for some seconds others see the card, then you in the new size.");
}

function whyNotNow({ state, recording, finishing, readers, reader_count }) {
  if (reader_count) return `A camera cannot change its size while a program shows it. Close it there first: ${readers.join(", ") || "a program"}.`;
  if (recording || finishing) return "A recording is not finished yet. End it first.";
  return ["paused", "panic"].includes(state) ? "Nothing is shown now. Resume first." : "";
}

function choices(picker, options, chosen, also = false) {
  if (!also && document.activeElement === picker) return;
  if (JSON.stringify(options) !== JSON.stringify([...picker.options].map((one) => [one.value, one.text]))) {
    picker.replaceChildren(...options.map(([value, words]) => new Option(words, value)));
  }
  picker.value = chosen;
}

async function drawSources(also = false) {
  const { sources } = await ask("/api/v1/sources");
  const current = sources.find((one) => status && (status.source === one.name || (one.source === "pattern" && status.source === "test picture")));
  const options = sources.map((one) => [one.source, one.name]);
  if (!current && status) options.unshift(["", status.source]);
  choices(at("source-picker"), options, current ? current.source : "", also);
}

at("advanced").addEventListener("toggle", () => { if (at("advanced").open) byItself(drawSources); });
at("source-picker").addEventListener("change", (event) => { if (event.target.value) send({ command: "source", source: event.target.value }); });
at("framing-picker").addEventListener("change", (event) => doing(async () => show(await ask("/api/v1/look", { framing: event.target.value }))));
at("region-picker").addEventListener("change", (event) => doing(async () => show(await ask("/api/v1/look", { region: event.target.value }))));
at("elsewhere-picker").addEventListener("change", (event) => doing(async () => show(await ask("/api/v1/look", { elsewhere: event.target.value }))));
at("size-picker").addEventListener("change", (event) => {
  const [width, height] = event.target.value.split("x").map(Number);
  send({ command: "engine", changes: { width, height } });
});
at("steps-picker").addEventListener("change", (event) => send({ command: "engine", changes: { steps: Number(event.target.value) } }));
at("mirror").addEventListener("change", (event) => send({ command: "mirror", on: event.target.checked }));
at("sent-picker").addEventListener("change", sayHowSent);
at("send-at").addEventListener("click", () => send({ command: "size", size: at("sent-picker").value }));
at("forget").addEventListener("click", () => send({ command: "forget" }));
document.addEventListener("refused", async () => {
  if (!status) return;
  drawPreset(status);
  at("sent-picker").value = at("sent-picker").dataset.now;
  sayHowSent();
  at("mirror").checked = status.mirror;
  try {
    await drawSliders(true);
    if (at("advanced").open) await drawSources(true);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the camera has gone: live.js says so
  }
});
