// The first steps: what a new user has, and what is still to be done; once, and never in the way again.
"use strict";

const MARKS = { done: ["✓", "done"], note: ["!", "it works, but"], open: ["", "to do"] };
const TICKED = "vcam-ticked"; // what nobody but the user can see was done
let setUp = true; // until the camera says otherwise
let toOthers = true; // whether the picture shall go to other programs at all
const HIDDEN = "vcam-first-hidden"; // for this window alone: they are to come when it does
let firstFor = ""; // what they were last asked for
let stepsShown = ""; // what was last drawn: a step that is drawn anew under the pointer loses the click

async function loadFirst() {
  setUp = (await ask("/api/v1/page")).set_up;
  firstFor = "";
  await drawFirst();
}

async function drawFirst() {
  const { steps, program: called } = await ask("/api/v1/first-steps");
  localStorage.setItem("vcam-program", called);
  const ticked = localStorage.getItem(TICKED) === "yes";
  const done = steps.every((one) => one.mark !== "open" && (one.mark !== "own" || ticked));
  const before = setUp;
  toOthers = steps.some((one) => one.id === "program");
  at("first").hidden = setUp || (!toOthers && sessionStorage.getItem(HIDDEN) === "yes");
  text("first-title", titleOf(done));
  text("first-done", done ? "Fine" : "Hide these");
  const said = JSON.stringify([called, steps]);
  if (said !== stepsShown) at("first-steps").replaceChildren(...steps.map(stepLine));
  stepsShown = said;
  if (done && toOthers && !before) keepSetUp(false);
}

function titleOf(done) {
  if (!toOthers) return done ? "All is as you chose" : "Something is still to be done";
  return done ? "You are on: others see you" : "Three steps, and others see you";
}

function stepLine(step, index) {
  const line = made("li");
  line.dataset.mark = step.mark;
  const mark = step.mark === "own" ? tick() : markOf(step, index);
  const body = made("div");
  body.append(made("strong", step.title), made("p", callable(step.text)));
  line.append(mark, body);
  if (step.command) {
    const bar = made("div", "", { className: "bar" });
    const code = made("code", callable(step.command));
    const copy = made("button", "Copy", { type: "button", className: "quiet" });
    copy.addEventListener("click", () => copyFrom(code, copy));
    bar.append(code, copy);
    body.append(bar);
  }
  return line;
}

function markOf(step, index) {
  const [sign, words] = MARKS[step.mark];
  const mark = made("span", sign || String(index + 1), { className: "mark" });
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", words);
  return mark;
}

// No system but Linux says who opens a camera: a mark that could never turn green is not shown.
function tick() {
  const box = made("input", "", { type: "checkbox", className: "mark", checked: localStorage.getItem(TICKED) === "yes" });
  box.setAttribute("aria-label", "I have done this");
  box.addEventListener("change", () => {
    localStorage.setItem(TICKED, box.checked ? "yes" : "no");
    doing(drawFirst);
  });
  return box;
}

async function keepSetUp(hide) {
  if (hide && !toOthers) {
    sessionStorage.setItem(HIDDEN, "yes");
    at("first").hidden = true;
    return;
  }
  if (hide) {
    setUp = true; // with the press itself, not when the camera has answered
    at("first").hidden = true;
  }
  await doing(() => ask("/api/v1/page", { set_up: true }));
}

function lookAtFirst(now) {
  const about = `${now.source} ${now.sink} ${now.state} ${now.reason} ${now.readers}`;
  if (setUp || about === firstFor) return;
  firstFor = about;
  byItself(drawFirst);
}

at("first-done").addEventListener("click", () => keepSetUp(true));
