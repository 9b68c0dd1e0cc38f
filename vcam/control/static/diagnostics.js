// Figures, plots and what happened, for who wants to know.
"use strict";

let logged = -1; // lines of the log when it was last drawn
const plots = { fps: new Plot(at("fps-plot")), latency: new Plot(at("latency-plot")) };

function drawFigures(now) {
  text("fps", now.fps.toFixed(1));
  text("published", now.published_fps.toFixed(1));
  text("latency", now.latency_ms.toFixed(0));
  text("bank", (now.bank_bytes / 2 ** 20).toFixed(1));
  text("source", now.source);
  text("sink", `${now.sink === "none" ? "this page alone" : now.sink}, ${now.width}×${now.height}`);
  const again = now.restarts ? `, started again ${now.restarts} ${now.restarts === 1 ? "time" : "times"}` : "";
  text("engine", `${now.model} on ${now.device || "–"} (${now.runtime})${again}`);
  text("obs", now.obs || "–");
  text("frames", `${now.captured} from the camera, ${now.translated} drawn, ${now.published} sent`);
}

async function drawLog() {
  const { log } = await ask("/api/v1/log");
  at("log").replaceChildren(...log.reverse().map((one) => made("li", callable(`${new Date(1000 * one.at).toLocaleTimeString()}  ${one.text}`))));
}

setInterval(() => {
  if (!status) return;
  plots.fps.add(status.fps);
  plots.latency.add(status.latency_ms);
}, 1000);
