// The picture: what is published, the card at once, the camera beside it, pause and panic, recording.
"use strict";

let status = null; // what the camera said last
let comparing = ""; // "", "held" or "split"

function send(command) {
  return doing(async () => show(await ask("/api/v1/command", command)));
}

// Into the state by the command, or out of it: decided once the last such press is answered, however quick they come.
let flipped = Promise.resolve();
let halting = ""; // the state that was asked for: covered at once, whatever is still said of the one before
function flip(state, command) {
  halting = status?.state === state ? "" : state;
  veil(halting);
  flipped = flipped.then(async () => {
    await send({ command: status?.state === state ? "resume" : command });
    halting = "";
    if (status) drawPicture(status);
  });
}

// A card stands still, and must be seen at once, whatever the stream of pictures does.
const VEILS = {
  panic: ["Nothing is shown", "Others see a card without a word about you. Resume goes on."],
  paused: ["Paused", "Others see a card. Resume goes on."],
  stopping: ["Ending", "Nothing new is sent to anybody."],
  again: ["One moment", "The camera begins again with the new size."],
  gone: ["Not running", "Nothing new is sent to anybody."],
};

function veil(state) {
  const words = VEILS[state];
  at("veil").hidden = !words;
  cover(Boolean(words), state === "panic");
  if (words) {
    text("veil-title", words[0]);
    text("veil-text", words[1]);
  }
}

// Under a veil no picture of the user is left anywhere on the page; a panic throws them away.
let covered = false;

function cover(is, forGood) {
  if (forGood) dropOwnPictures();
  if (covered === is) return;
  covered = is;
  if (is) compare("");
  for (const id of ["compare", "split", "mine", "try"]) at(id).disabled = is;
  drawTrial();
  drawGrid();
}

// What ends with a reason is not the end: it is back in a moment.
function beginsAgain(now) {
  return now?.state === "stopping" && Boolean(now.reason);
}

function drawPicture(now) {
  veil(halting || (beginsAgain(now) ? "again" : now.state));
  pressed("pause", now.state === "paused");
  text("pause", { paused: "Resume", failed: "Try again" }[now.state] ?? "Pause");
  pressed("panic", now.state === "panic");
  text("panic", now.state === "panic" ? "Resume" : "Panic");
  drawRecording(now);
}

// What has ended is not yet kept: it is completed and signed first, which is said until it is.
// That a recording hears the microphone is never left unsaid: on the button before, on the picture meanwhile.
const SOUNDS = { on: "with sound", cut: "sound is off", missing: "no sound" };

function drawRecording({ recording, recorded_s, finishing, microphone, sound }) {
  pressed("microphone", microphone);
  text("microphone", microphone ? "Mic on" : "Mic off");
  at("microphone").title = microphone ? `Recordings hear this microphone: ${microphone}` : "Recordings are without sound";
  pressed("record", recording);
  at("record").disabled = !recording && Boolean(finishing);
  at("recording").hidden = !recording && !finishing;
  at("recording").classList.toggle("finishing", !recording);
  const seconds = Math.floor(recorded_s);
  const length = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  const said = SOUNDS[sound] ? `${length} · ${SOUNDS[sound]}` : length;
  text("recorded", recording ? said : "Finishing the recording …");
}

function told(before, now) {
  if (before && now.saved && now.saved !== before.saved) toast(`Saved: ${now.saved}`);
}

async function compare(wanted) {
  const how = covered ? "" : wanted;
  comparing = how;
  pressed("compare", how === "held");
  pressed("split", how === "split");
  at("wipe").hidden = how !== "split";
  at("compare-says").hidden = !how;
  at("screen").classList.toggle("splitting", how === "split");
  at("screen").style.setProperty("--from", how === "split" ? `${at("wipe").value}%` : "0%");
  if (!how) {
    at("input").hidden = true;
    at("input").removeAttribute("src");
    return;
  }
  if (!at("input").hasAttribute("src")) await doing(() => showLive(at("input"), "/api/v1/input.mjpeg"));
  at("input").hidden = !comparing; // let go meanwhile
}

at("wipe").addEventListener("input", () => at("screen").style.setProperty("--from", `${at("wipe").value}%`));
at("split").addEventListener("click", () => compare(comparing === "split" ? "" : "split"));
at("compare").addEventListener("pointerdown", () => compare("held"));
for (const ended of ["pointerup", "pointerleave", "pointercancel", "blur"]) {
  at("compare").addEventListener(ended, () => { if (comparing === "held") compare(""); });
}
at("compare").addEventListener("keydown", (event) => {
  if ([" ", "Enter"].includes(event.key) && !event.repeat) compare("held");
});
at("compare").addEventListener("keyup", () => { if (comparing === "held") compare(""); });

at("pause").addEventListener("click", () => {
  if (status?.state === "failed") send({ command: "resume" }); // the engine was given up
  else flip("paused", "pause");
});
at("panic").addEventListener("click", () => flip("panic", "panic"));
at("record").addEventListener("click", () => send({ command: "record-toggle" }));
at("microphone").addEventListener("click", () => send({ command: "microphone" }));
at("snapshot").addEventListener("click", () => send({ command: "snapshot" }));
document.addEventListener("refused", () => { if (status) drawPicture(status); });
