// The connection: shows each status that the camera sends; finds it again when it was gone.
"use strict";

const WORDS = {
  starting: "Starting", running: "Live", restarting: "One moment", waiting: "Waiting for the camera",
  failed: "No picture", paused: "Paused", panic: "Nothing is shown", stopping: "Ending", resting: "Resting: nobody looks",
};
// After that long without the camera another program may listen at this port: nothing is told it, and no camera knows it.
const KEY_KEPT_MS = 300_000;
const BACK_MS = 30_000; // a camera that begins again is back by then
let retryMs = 500;
let lastThereMs = Date.now();

function show(next) {
  const before = status;
  status = next;
  at("state").dataset.state = next.state;
  const percent = next.progress === null ? "" : ` ${Math.round(100 * next.progress)} %`;
  const reason = next.state === "stopping" && next.finishing ? "the recording is being finished" : next.reason;
  const why = reason && reason !== next.state && next.state !== "resting" ? `: ${reason}` : "";
  text("state-text", WORDS[next.state] + callable(why) + percent);
  text("line", sentence(next));
  drawPicture(next);
  told(before, next);
  drawPreset(next);
  drawSent(next);
  drawFigures(next);
  lookAtFirst(next);
  if (!before || before.prompt !== next.prompt) {
    if (document.activeElement !== at("prompt") || !before) at("prompt").value = next.prompt;
    markUnknown();
  }
  if (!before || before.notes.join("\n") !== next.notes.join("\n")) {
    at("notes").replaceChildren(...next.notes.map((note) => made("li", callable(note))));
  }
  if (looksOf !== next.profile) {
    looksOf = next.profile;
    if (looks.length) markCurrent(next.profile);
  }
  if (before && before.model !== next.model) byItself(drawWords);
  if (logged !== next.logged) {
    logged = next.logged;
    byItself(async () => {
      await Promise.all([drawLog(), drawSliders(), drawLooks()]);
    });
  }
}

// What a streamer wants to know, in one line.
function sentence({ state, fps, latency_ms, readers, reader_count, sink }) {
  const parts = [];
  if (state === "running") parts.push(pictures(fps), `${(latency_ms / 1000).toFixed(1)} s behind`);
  if (readers.length) parts.push(`${readers.join(", ")} ${readers.length === 1 ? "shows" : "show"} it`);
  else if (reader_count === 0 && sink !== "none") parts.push("no program shows it yet");
  return parts.join(" · ");
}

function pictures(fps) {
  const count = fps.toFixed(0);
  return `${count} ${count === "1" ? "picture" : "pictures"} a second`;
}

function connected(is) {
  at("main").inert = !is;
  const again = beginsAgain(status); // as a camera with another size
  at("gone").hidden = is || again;
  if (is) return;
  at("state").dataset.state = again ? "starting" : "gone";
  text("state-text", again ? "Beginning again" : "Not running");
  text("again", `${program()} run`);
  text("line", "");
  veil(again ? "again" : "gone");
  const { naturalWidth: width, naturalHeight: height } = at("picture"); // under the veil, too, nothing of the user is left
  at("picture").src = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"/>`;
}

function listen() {
  const socket = new WebSocket(`ws://${location.host}/api/v1/events`, ["vcam", `key.${pageKey}`]);
  socket.addEventListener("open", () => {
    socket.addEventListener("close", () => { lastThereMs = Date.now(); });
    retryMs = 500;
    logged = -1;
    looksOf = null;
    status = null;
    connected(true);
    complain("");
    compare("");
    byItself(() => showLive(at("picture"), "/api/v1/picture.mjpeg"));
    byItself(drawWords);
    byItself(loadFirst);
    if (at("advanced").open) byItself(drawSources);
  });
  socket.addEventListener("message", (event) => show(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    connected(false);
    retry();
  });
}

// By a plain request first: its answer tells a camera that is not there from a key that is no good any more.
async function retry() {
  await new Promise((done) => { setTimeout(done, retryMs); });
  retryMs = Math.min(5000, retryMs * 2);
  if (Date.now() - lastThereMs > KEY_KEPT_MS) {
    needFreshLink();
    return;
  }
  if (Date.now() - lastThereMs > BACK_MS) at("gone").hidden = false;
  try {
    await ask("/api/v1/status");
  } catch {
    if (at("fresh-link").hidden) retry();
    return;
  }
  listen();
}

at("copy-again").addEventListener("click", () => copyFrom(at("again"), at("copy-again")));
if (pageKey) ask("/api/v1/status").then(listen, () => { if (at("fresh-link").hidden) listen(); });
else needFreshLink();
