// A line over the last two minutes.
"use strict";

const SPAN_S = 120;

class Plot {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = [];
  }

  add(value) {
    const now = performance.now() / 1000;
    this.points.push([now, value]);
    while (this.points.length && now - this.points[0][0] > SPAN_S) this.points.shift();
    this.draw(now);
  }

  draw(now) {
    const { canvas, points } = this;
    const style = getComputedStyle(canvas);
    const [width, height, left] = [canvas.width, canvas.height, 44];
    const pen = canvas.getContext("2d");
    const top = nice(Math.max(1, ...points.map(([, value]) => value)));
    pen.clearRect(0, 0, width, height);
    pen.font = "18px system-ui, sans-serif";
    pen.fillStyle = style.getPropertyValue("--soft");
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      const y = 8 + (1 - share) * (height - 16);
      pen.beginPath();
      pen.moveTo(left, y);
      pen.lineTo(width, y);
      pen.stroke();
      pen.fillText(String(top * share), left - 6, y + 6);
    }
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 3;
    pen.beginPath();
    points.forEach(([at, value], index) => {
      const x = width - ((now - at) / SPAN_S) * (width - left);
      const y = 8 + (1 - value / top) * (height - 16);
      if (index) pen.lineTo(x, y); else pen.moveTo(x, y);
    });
    pen.stroke();
    pen.lineWidth = 1;
  }
}

function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * unit).find((one) => one >= value);
}
