// What the keys do, and the list of them.
"use strict";

const KEYS = {
  n: ["next look", () => send({ command: "next" })],
  b: ["the look before", () => send({ command: "previous" })],
  p: ["pause, resume", () => at("pause").click()],
  x: ["panic: show nothing, at once", () => at("panic").click()],
  r: ["record, stop recording", () => at("record").click()],
  m: ["recordings with the microphone, or without", () => at("microphone").click()],
  s: ["keep a picture", () => at("snapshot").click()],
  c: ["hold: what the camera sees", () => compare("held")],
  t: ["preview what is written: only you see it", () => at("try").click()],
  l: ["take the preview live", take],
  f: ["clear trails", () => at("forget").click()],
  "/": ["search the looks", () => at("search").focus()],
  "?": ["this list", () => at("keys").showModal()],
};

at("keys-list").append(
  ...[["1–9", "your favourites"], ...Object.entries(KEYS).map(([key, [words]]) => [key.toUpperCase(), words])].flatMap(([key, words]) => {
    const name = made("dt");
    name.append(made("kbd", key));
    return [name, made("dd", words)];
  }),
);
at("help").addEventListener("click", () => at("keys").showModal());

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea, dialog");
  if (event.ctrlKey || event.altKey || event.metaKey || at("main").inert) return;
  if (event.key === "Escape" && !event.target.closest?.("dialog")) {
    drop();
    event.target.blur?.();
    return;
  }
  if (typing || event.repeat) return;
  const number = Number(event.key);
  if (number >= 1 && number <= 9) {
    const id = keyed()[number - 1];
    if (id) useLook(id);
    return;
  }
  const work = KEYS[event.key.toLowerCase()]?.[1];
  if (work) {
    event.preventDefault();
    work();
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "c" && comparing === "held") compare("");
});
