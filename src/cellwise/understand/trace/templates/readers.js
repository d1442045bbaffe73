// What stands at the top: a passage of text, or a chart of a series. Each has show(view) and stepAt(event).

const SIGNS = { " ": "␣", "\n": "¶", "\t": "⇥" };
const WORDS = { " ": "space", "\n": "new line", "\t": "tab", ",": "comma", ".": "full stop", "'": "apostrophe", '"': "quotation mark", "-": "hyphen" };
const sign = (letter) => SIGNS[letter] ?? letter;
const spoken = (letter) => WORDS[letter] ?? letter;
const percent = (share) => (share >= 0.0995 ? Math.round(100 * share) : share >= 0.0005 ? (100 * share).toFixed(1) : "<0.1") + " %";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Passage {
  constructor(data, home) {
    this.data = data;
    this.home = home;
    this.spans = data.labels.map((letter, step) => {
      const span = element("span", { "data-step": step });
      span.textContent = letter === "\n" ? "¶\n" : letter;
      return span;
    });
    home.append(...this.spans);
  }

  stepAt(event) {
    const step = event.target.dataset?.step;
    return step === undefined ? null : Number(step);
  }

  // view.weights: -1 ... 1 for each step, by which it is shaded.
  show(view) {
    const up = colour("--model"), down = colour("--naive");
    this.spans.forEach((span, t) => {
      const weight = view.weights[t], strength = Math.round(58 * Math.sqrt(Math.abs(weight)));
      const marks = [t > view.step && !view.byUnit && "later", t === view.step && "now", t === view.step + 1 && "next"];
      span.className = marks.filter(Boolean).join(" ");
      span.style.backgroundColor = strength < 2 ? "" : `color-mix(in srgb, ${weight > 0 ? up : down} ${strength}%, transparent)`;
    });
  }

  reveal(step) {
    const span = this.spans[step], box = this.home;
    const above = span.offsetTop - box.scrollTop, room = box.clientHeight - 40;
    if (above < 20 || above > room) box.scrollTop = span.offsetTop - box.clientHeight / 2;
  }

  predictions(step, target) {
    const [letters, chances] = this.data.suggestions[step];
    const came = this.data.labels[step + 1];
    const rows = [...letters].map((letter, i) => [letter, chances[i]]);
    if (came !== undefined && !letters.includes(came)) rows.push([came, this.data.chances[step]]);
    return rows.map(([letter, chance]) => element("div", { class: "bar" },
      element("span", {}, element("span", { class: "sign", title: spoken(letter) }, sign(letter))),
      element("span", {}, element("i", { style: `width:${(100 * chance).toFixed(1)}%` })),
      element("span", { class: "number" }, percent(chance)),
      element("span", { class: "came" }, letter === came ? "✓ came" : "")));
  }

  heading(step) {
    const before = this.data.labels.slice(Math.max(0, step - 17), step + 1).map(sign).join("");
    return [`After ${step > 17 ? "…" : ""}`, element("span", { class: "sign" }, before), " it expects"];
  }

  sentence(step) {
    const [letters, chances] = this.data.suggestions[step];
    const expects = [...letters].slice(0, 3).map((letter, i) => `${spoken(letter)} (${percent(chances[i])})`).join(", ");
    const came = this.data.labels[step + 1];
    const read = this.data.labels.slice(Math.max(0, step - 17), step + 1).join("");
    return `Step ${step + 1} of ${this.data.steps}. After “${read}” it expects ${expects}.` + (came === undefined ? "" : ` ${spoken(came)} came.`);
  }

  stepName(step) { return `${step + 1} of ${this.data.steps}`; }
  inputName(step) { return element("span", { class: "sign", title: spoken(this.data.labels[step]) }, sign(this.data.labels[step])); }
  spokenInput(step) { return spoken(this.data.labels[step]); }
}

class Chart {
  constructor(data, home) {
    this.data = data;
    this.home = home;
    const all = data.filled.concat(data.forecasts.flat(2)).filter((v) => v !== null);
    const sorted = all.slice().sort((a, b) => a - b);
    const low = Math.min(...data.filled, sorted[Math.floor(sorted.length * 0.01)]);
    const high = Math.max(...data.filled, sorted[Math.floor(sorted.length * 0.99)]);
    const room = (high - low || 1) * 0.06;
    Object.assign(this, { low: low - room, high: high + room, left: 62, top: 8, tall: 240, strip: 74, gap: 26 });
    this.rowTall = 44;
    this.begin = this.top + this.tall + this.gap + this.rowTall * data.rows.length;  // of the strip of dependences
  }

  get across() { return (this.home.clientWidth - this.left - 6) / (this.data.steps + this.data.future.length); }
  x(t) { return this.left + (t + 0.5) * this.across; }
  // A band that leaves the chart ends at its edge: some bands are so wide that they would flatten all else.
  y(v) { return this.top + this.tall * (1 - Math.min(1, Math.max(0, (v - this.low) / (this.high - this.low)))); }

  stepAt(event) {
    const box = this.home.getBoundingClientRect();
    const step = Math.floor((event.clientX - box.left - this.left) / this.across);
    return step < -1 ? null : Math.min(this.data.steps - 1, Math.max(0, step));
  }

  show(view) {
    const whole = this.begin + this.strip + 20;
    const svg = shape("svg", { height: whole, role: "img", "aria-label": this.sentence(view.step, view.target) });
    this.drawAxis(svg);
    this.drawSeries(svg, view);
    this.drawRows(svg, view);
    this.drawBars(svg, view);
    this.home.replaceChildren(svg);
  }

  path(points) {
    let pen = "M";
    return points.map(([t, v]) => {
      if (v === null) { pen = "M"; return ""; }
      const text = `${pen}${this.x(t).toFixed(1)},${this.y(v).toFixed(1)}`;
      pen = "L";
      return text;
    }).join("");
  }

  drawAxis(svg) {
    const step = niceStep((this.high - this.low) / 4), right = this.x(this.data.steps + this.data.future.length - 1);
    for (let v = Math.ceil(this.low / step) * step; v <= this.high; v += step) {
      svg.append(shape("line", { class: "grid", x1: this.left, x2: right, y1: this.y(v), y2: this.y(v) }));
      svg.append(shape("text", { x: this.left - 8, y: this.y(v) + 4, "text-anchor": "end" }, short(v)));
    }
    const names = this.data.labels.concat(this.data.future), widest = Math.max(...names.map((name) => name.length));
    const every = Math.max(1, Math.ceil(((widest + 3) * 6.6) / this.across));
    const half = widest * 3.3;
    for (let t = 0; t < names.length; t += every)
      if (this.x(t) - half > this.left - 8 && this.x(t) + half < right + 12)
        svg.append(shape("text", { x: this.x(t), y: this.top + this.tall + 16, "text-anchor": "middle" }, names[t]));
  }

  drawSeries(svg, view) {
    const { data } = this, values = data.y.map((v, t) => [t, v]), made = data.forecasts[view.step];
    const ahead = made.map((three, h) => [view.step + 1 + h, ...three]);
    const band = ahead.filter((row) => row[1] !== null && row[3] !== null);
    const edge = (place) => band.map((row) => `${this.x(row[0]).toFixed(1)},${this.y(row[place]).toFixed(1)}`);
    svg.append(shape("polygon", { class: "band", points: [...edge(1), ...edge(3).reverse()].join(" ") }));
    svg.append(shape("path", { class: "after", d: this.path(values.slice(view.step)) }));
    svg.append(shape("path", { class: "seen", d: this.path(values.slice(0, view.step + 1)) }));
    svg.append(shape("path", { class: "median", d: this.path([[view.step, data.filled[view.step]], ...ahead.map((row) => [row[0], row[2]])]) }));
    const changed = view.what && view.step === data.steps - 1 ? data.whatIfs[view.what - 1].median : [];
    if (changed.length) svg.append(shape("path", { class: "changed", d: this.path(changed.map((v, h) => [data.steps + h, v])) }));
    const edgeX = this.x(view.step + 0.5);
    svg.append(shape("line", { class: "cutoff", x1: edgeX, x2: edgeX, y1: this.top, y2: this.top + this.tall }));
    const h = data.horizons[view.target] - 1;
    if (made[h][1] !== null)
      svg.append(shape("circle", { class: "chosen", cx: this.x(view.step + 1 + h), cy: this.y(made[h][1]), r: 4.5 }));
  }

  // The covariates, below the dates: those known in advance reach over the forecast.
  drawRows(svg, view) {
    this.data.rows.forEach(({ name, values }, i) => {
      const top = this.top + this.tall + this.gap + this.rowTall * i + 14, tall = this.rowTall - 22;
      const known = values.filter((v) => v !== null), low = Math.min(...known), high = Math.max(...known);
      const y = (v) => top + tall * (high > low ? 1 - (v - low) / (high - low) : 1);
      let pen = "M";
      const path = values.map((v, t) => {
        if (v === null) { pen = "M"; return ""; }
        const left = this.x(t - 0.5).toFixed(1), right = this.x(t + 0.5).toFixed(1), text = `${pen}${left},${y(v).toFixed(1)}H${right}`;
        pen = "L";
        return text;
      }).join("");
      svg.append(shape("path", { class: "covariate", d: path }));
      svg.append(shape("text", { x: this.left, y: top - 4 }, name));
      if (!known.length) return;
      svg.append(shape("text", { x: this.left - 8, y: top + 5, "text-anchor": "end" }, short(high)));
      if (high > low) svg.append(shape("text", { x: this.left - 8, y: top + tall + 3, "text-anchor": "end" }, short(low)));
    });
  }

  drawBars(svg, view) {
    const { begin } = this, signed = view.row.signed, zero = begin + (signed ? this.strip / 2 : this.strip);
    const tall = signed ? this.strip / 2 : this.strip, wide = Math.max(1, this.across * 0.8);
    const right = this.x(this.data.steps + this.data.future.length - 1);
    svg.append(shape("line", { class: "grid", x1: this.left, x2: right, y1: zero, y2: zero }));
    const largest = short(view.row.largest);
    svg.append(shape("text", { x: this.left - 8, y: begin + 10, "text-anchor": "end" }, signed ? "+" + largest : largest));
    if (signed) svg.append(shape("text", { x: this.left - 8, y: begin + this.strip, "text-anchor": "end" }, "−" + largest));
    view.row.shares.forEach((share, t) => {
      if (!share) return;
      const size = Math.abs(share) * tall;
      svg.append(shape("rect", { class: share > 0 ? "up" : "down", x: this.x(t) - wide / 2, width: wide, y: share > 0 ? zero - size : zero, height: size }));
    });
  }

  reveal() {}

  predictions(step, target) {
    const { data } = this, made = data.forecasts[step], h = data.horizons[target] - 1;
    const when = data.labels.concat(data.future)[step + 1 + h], truth = step + 1 + h < data.steps ? data.y[step + 1 + h] : undefined;
    const table = element("table");
    for (const [name, value] of [["for", when], ["median", full(made[h][1])], [`band of ${data.band} %`, `${full(made[h][0])} to ${full(made[h][2])}`], ["what came", truth === undefined ? "not known yet" : truth === null ? "missing" : full(truth)]])
      table.append(element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "number" }, value)));
    return [table];
  }

  heading(step, target) { return [`Knowing all until ${this.data.labels[step]}, ${this.data.targets[target]}`]; }

  sentence(step, target) {
    const h = this.data.horizons[target] - 1, [low, middle, high] = this.data.forecasts[step][h];
    return `Step ${step + 1} of ${this.data.steps}, ${this.data.labels[step]}. The forecast ${this.data.targets[target]} is ${full(middle)}, between ${full(low)} and ${full(high)}.`;
  }

  stepName(step) { return this.data.labels[step]; }
  inputName(step) { return this.data.labels[step]; }
  spokenInput(step) { return this.data.labels[step]; }
}

function niceStep(rough) {
  const size = 10 ** Math.floor(Math.log10(rough)), share = rough / size;
  return size * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
}

const full = (v) => (v === null ? "unknown" : Number(v.toPrecision(4)).toLocaleString("en"));
const short = (v) => plain(v).replace("-", "−");
const plain = (v) => (Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(1) : Number(v.toPrecision(3)).toLocaleString("en"));
