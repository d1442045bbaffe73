// States and gates as a heat map: units down, time across.

function parse(text) {
  const hex = text.replace("#", "");
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// A colour for each code of a signal, as one table of bytes.
function palette(signal) {
  const middle = parse(colour("--middle")), up = parse(colour("--model")), down = parse(colour("--naive"));
  const table = new Uint8ClampedArray(4 * (signal.levels + 1));
  for (let code = 0; code <= signal.levels; code++) {
    const value = signal.low + (code / signal.levels) * (signal.high - signal.low);
    const share = value / Math.max(Math.abs(signal.low), Math.abs(signal.high));
    const end = share < 0 ? down : up, weight = Math.abs(share);
    for (let i = 0; i < 3; i++) table[4 * code + i] = middle[i] + weight * (end[i] - middle[i]);
    table[4 * code + 3] = 255;
  }
  return table;
}

class HeatMap {
  constructor(data) {
    this.data = data;
    for (const id of ["heat", "map", "canvas", "column", "row", "letters", "scale", "low", "high"])
      this[id] = document.getElementById(id);
  }

  // draw: everything; the marks of the chosen step and unit are moved by `mark` alone.
  draw(layer, signal, order, across) {
    const T = this.data.steps, units = layer.orders[order];
    this.units = units;
    this.across = across;
    this.down = units.length <= 32 ? 10 : units.length <= 64 ? 6 : units.length <= 128 ? 3 : 2;
    const table = palette(signal), image = new ImageData(T, units.length);
    units.forEach((place, line) => {
      for (let t = 0; t < T; t++) {
        const code = 4 * signal.codes[place * T + t];
        image.data.set(table.subarray(code, code + 4), 4 * (line * T + t));
      }
    });
    Object.assign(this.canvas, { width: T, height: units.length });
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.canvas.style.width = this.map.style.width = T * across + "px";
    this.canvas.style.height = units.length * this.down + "px";
    this.drawScale(signal, table);
    this.drawLetters();
  }

  drawScale(signal, table) {
    const image = new ImageData(128, 1);
    for (let i = 0; i < 128; i++) {
      const code = 4 * Math.round((i / 127) * signal.levels);
      image.data.set(table.subarray(code, code + 4), 4 * i);
    }
    this.scale.getContext("2d").putImageData(image, 0, 0);
    this.low.textContent = `${signal.name}:  ${short(signal.low)}`;
    this.high.textContent = short(signal.high);
  }

  drawLetters() {
    if (this.data.kind !== "characters" || this.across < 7) { this.letters.hidden = true; return; }
    this.letters.hidden = false;
    this.letters.replaceChildren(...this.data.labels.map((letter, t) => {
      const span = element("span", { style: `left:${t * this.across}px;width:${this.across}px` });
      span.textContent = sign(letter);
      return span;
    }));
  }

  mark(step, place) {
    const line = this.units.indexOf(place), { across, down } = this;
    Object.assign(this.column.style, { left: step * across - 1 + "px", width: across + 2 + "px", height: this.units.length * down + "px" });
    Object.assign(this.row.style, { top: line * down - 1 + "px", height: down + 2 + "px", width: this.data.steps * across + "px" });
  }

  reveal(step) {
    const at = step * this.across - this.heat.scrollLeft;
    if (at < 30 || at > this.heat.clientWidth - 60) this.heat.scrollLeft = step * this.across - this.heat.clientWidth / 2;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const step = Math.floor((event.clientX - box.left) / this.across), line = Math.floor((event.clientY - box.top) / this.down);
    const inside = step >= 0 && step < this.data.steps && line >= 0 && line < this.units.length;
    return inside ? { step, unit: this.units[line] } : null;
  }
}

// One unit over time, under the heat map and in line with it.
function drawUnitLine(home, data, signal, place, step, left, across) {
  const tall = 70, y = (v) => 4 + tall * (1 - (v - signal.low) / (signal.high - signal.low || 1));
  const svg = shape("svg", { height: tall + 10, "aria-hidden": "true" });
  svg.style.width = left + data.steps * across + "px";
  const zero = Math.max(signal.low, Math.min(signal.high, 0));
  svg.append(shape("line", { class: "grid", x1: left, x2: left + data.steps * across, y1: y(zero), y2: y(zero) }));
  let path = "";
  for (let t = 0; t < data.steps; t++) path += `${t ? "L" : "M"}${(left + (t + 0.5) * across).toFixed(1)},${y(signalValue(data, signal, place, t)).toFixed(1)}`;
  svg.append(shape("path", { class: "unitline", d: path }));
  const value = signalValue(data, signal, place, step);
  svg.append(shape("circle", { class: "chosen", cx: left + (step + 0.5) * across, cy: y(value), r: 3.5 }));
  home.replaceChildren(svg);
}
