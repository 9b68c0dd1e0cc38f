// A look in words: what the model knows is offered as one types, what it does not know is marked at the box.
"use strict";

let known = { styles: [], words: [] };
let trial = null; // the look that is tried

async function drawWords() {
  known = await ask("/api/v1/words");
  at("styles").replaceChildren(...known.styles.map((style) => chip(style, () => useStyle(style))));
  markUnknown();
}

function chip(words, work) {
  const button = made("button", words, { type: "button" });
  button.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus, and what it offers
  button.addEventListener("click", work);
  return button;
}

// In place of the style that the prompt has, or before it.
function useStyle(style) {
  const now = at("prompt").value;
  const before = known.styles.filter((one) => now.toLowerCase().includes(one)).sort((one, other) => other.length - one.length)[0];
  const begins = before ? now.toLowerCase().indexOf(before) : 0;
  const rest = before ? now.slice(begins + before.length) : now ? `, ${now}` : ", a person talking";
  at("prompt").value = `${before ? now.slice(0, begins) : ""}${style}${rest}`;
  markUnknown();
  at("prompt").focus();
}

function markUnknown() {
  const words = at("prompt").value.toLowerCase().match(/\p{L}+/gu) ?? [];
  const vocabulary = new Set(known.words);
  const typing = document.activeElement === at("prompt") && /\p{L}$/u.test(at("prompt").value) ? words.at(-1) : null;
  const strange = known.words.length ? [...new Set(words.filter((word) => !vocabulary.has(word)))] : [];
  const begun = typing && known.words.some((word) => word.startsWith(typing) && word !== typing);
  const told = strange.filter((word) => !(begun && word === typing));
  at("unknown").hidden = !told.length;
  at("prompt").classList.toggle("has-unknown", told.length > 0);
  text("unknown", told.length ? `Not known, and left out: ${told.join(", ")}` : "");
  suggest(typing && typing.length > 1 ? typing : "");
}

function suggest(begun) {
  const fitting = begun ? known.words.filter((word) => word.startsWith(begun) && word !== begun).slice(0, 6) : [];
  at("suggestions").replaceChildren(...fitting.map((word) => chip(word, () => {
    at("prompt").value = at("prompt").value.replace(/\p{L}+$/u, `${word} `);
    markUnknown();
    at("prompt").focus();
  })));
}

async function tryIt(wanted, words) {
  trial = wanted;
  text("trial-text", `Trying: ${words} …`);
  at("trial-picture").removeAttribute("src");
  drawTrial();
  const done = await doing(async () => {
    const address = await asAddress(await ask("/api/v1/try", wanted));
    if (trial !== wanted) return; // dropped meanwhile, or another is tried
    at("trial-picture").src = address;
    text("trial-text", `${words}: only you see this`);
  });
  if (!done && trial === wanted) drop();
}

function drawTrial() {
  at("trial").hidden = covered || !trial;
}

function drop() {
  trial = null;
  at("trial-picture").removeAttribute("src");
  drawTrial();
}

async function take() {
  if (!trial) return;
  const { prompt } = trial;
  drop();
  await send({ command: "prompt", prompt, transition_ms: blend() });
}

at("prompt").addEventListener("input", markUnknown);
at("prompt").addEventListener("blur", markUnknown);
at("prompt-form").addEventListener("submit", (event) => {
  event.preventDefault();
  drop();
  suggest("");
  send({ command: "prompt", prompt: at("prompt").value, transition_ms: blend() });
});
at("try").addEventListener("click", () => tryIt({ prompt: at("prompt").value }, at("prompt").value));
at("take").addEventListener("click", take);
at("drop").addEventListener("click", drop);
