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
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const pen = canvas.getContext("2d");
    const top = nice(Math.max(1, ...points.map(([, value]) => value)));
    const marks = [0, 0.5, 1].map((share) => [share, (top * share).toLocaleString()]);
    canvas.width = width * devicePixelRatio; // as many points as the screen has, whatever the page's width
    canvas.height = height * devicePixelRatio;
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.font = "12px system-ui, sans-serif";
    const left = 8 + Math.max(...marks.map(([, words]) => pen.measureText(words).width));
    pen.fillStyle = style.getPropertyValue("--soft");
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.textAlign = "right";
    for (const [share, words] of marks) {
      const y = 8 + (1 - share) * (height - 16);
      pen.beginPath();
      pen.moveTo(left, y);
      pen.lineTo(width, y);
      pen.stroke();
      pen.fillText(words, left - 6, y + 4);
    }
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 2;
    pen.beginPath();
    points.forEach(([at, value], index) => {
      const x = width - ((now - at) / SPAN_S) * (width - left);
      const y = 8 + (1 - value / top) * (height - 16);
      if (index) pen.lineTo(x, y); else pen.moveTo(x, y);
    });
    pen.stroke();
  }
}

function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * unit).find((one) => one >= value);
}
