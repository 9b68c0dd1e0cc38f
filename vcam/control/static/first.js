// The first steps: what a new user has, and what is still to be done; once, and never in the way again.
"use strict";

const MARKS = { done: ["✓", "done"], note: ["!", "it works, but"], open: ["", "to do"] };
let setUp = true; // until the camera says otherwise
let firstFor = ""; // what they were last drawn for

async function loadFirst() {
  setUp = (await ask("/api/v1/page")).set_up;
  firstFor = "";
  await drawFirst();
}

async function drawFirst() {
  const { steps, program: called } = await ask("/api/v1/first-steps");
  localStorage.setItem("vcam-program", called);
  const done = steps.every((one) => one.mark !== "open");
  const before = setUp;
  at("first").hidden = setUp;
  text("first-title", done ? "You are on: others see you" : "Three steps, and others see you");
  text("first-done", done ? "Fine" : "Hide these");
  at("first-steps").replaceChildren(...steps.map(stepLine));
  if (done && !before) keepSetUp(false);
}

function stepLine(step, index) {
  const [sign, words] = MARKS[step.mark];
  const line = made("li");
  line.dataset.mark = step.mark;
  const mark = made("span", sign || String(index + 1), { className: "mark" });
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", words);
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

async function keepSetUp(hide) {
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
  doing(drawFirst);
}

at("first-done").addEventListener("click", () => keepSetUp(true));
