// A live line chart on a canvas: cheap enough to be watched without disturbing the call that it shows.
const PAD = { left: 46, right: 10, top: 24, bottom: 20 };

function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 2.5, 5, 10]) {
    if (value <= step * magnitude) return step * magnitude;
  }
  return 10 * magnitude;
}

function draw(canvas, model) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 360;
  const height = canvas.clientHeight || 150;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const ink = style.color;
  const faint = style.getPropertyValue("--calllab-faint").trim() || "rgba(128,128,128,.35)";

  const series = model.get("series");
  const points = model.get("points");
  const span = model.get("window_s");
  const times = series.flatMap((s) => (points[s.name] || []).map((p) => p[0]));
  const last = times.length ? Math.max(...times) : 0;
  const first = Math.max(0, last - span);
  const visible = series.map((s) => (points[s.name] || []).filter((p) => p[0] >= first));
  const top = niceCeiling(Math.max(0, ...visible.flat().map((p) => p[1] ?? 0)));
  const right = Math.max(last, first + Math.min(span, 10));
  const x = (t) => PAD.left + ((t - first) / (right - first)) * (width - PAD.left - PAD.right);
  const y = (v) => height - PAD.bottom - (v / top) * (height - PAD.top - PAD.bottom);

  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (const share of [0, 0.5, 1]) {
    pen.strokeStyle = faint;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(PAD.left, y(top * share));
    pen.lineTo(width - PAD.right, y(top * share));
    pen.stroke();
    pen.fillStyle = ink;
    pen.textAlign = "right";
    pen.fillText(String(Number((top * share).toPrecision(3))), PAD.left - 6, y(top * share));
  }
  pen.textAlign = "center";
  const step = niceCeiling((right - first) / 5);
  for (let t = Math.ceil(first / step) * step; t <= right; t += step) {
    pen.fillText(`${Number(t.toPrecision(4))} s`, x(t), height - PAD.bottom / 2);
  }
  pen.textAlign = "left";
  pen.font = "600 12px system-ui, sans-serif";
  pen.fillText(`${model.get("title")} (${model.get("unit")})`, 8, 10);

  series.forEach((s, i) => {
    pen.strokeStyle = s.color;
    pen.setLineDash(s.dashed ? [5, 3] : []);
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.beginPath();
    let down = false;
    for (const [t, v] of visible[i]) {
      if (v === null) {
        down = false;
      } else if (down) {
        pen.lineTo(x(t), y(v));
      } else {
        pen.moveTo(x(t), y(v));
        down = true;
      }
    }
    pen.stroke();
    pen.setLineDash([]);
  });
}

function render({ model, el }) {
  const figure = document.createElement("div");
  figure.className = "calllab-chart";
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${model.get("title")} in ${model.get("unit")} over time`);
  const legend = document.createElement("div");
  legend.className = "calllab-legend";
  for (const s of model.get("series")) {
    const entry = document.createElement("span");
    const swatch = document.createElement("i");
    swatch.style.borderTop = `3px ${s.dashed ? "dashed" : "solid"} ${s.color}`;
    entry.append(swatch, document.createTextNode(s.name));
    legend.append(entry);
  }
  figure.append(canvas, legend);
  el.append(figure);

  let queued = 0;
  const redraw = () => {
    if (!queued) queued = requestAnimationFrame(() => ((queued = 0), draw(canvas, model)));
  };
  const observer = new ResizeObserver(redraw);
  observer.observe(figure);
  model.on("change:points", redraw);
  redraw();
  return () => {
    observer.disconnect();
    cancelAnimationFrame(queued);
    model.off("change:points", redraw);
  };
}

export default { render };
