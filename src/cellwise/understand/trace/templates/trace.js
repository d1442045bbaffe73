// The state of the page, its controls, and what follows from a choice. The address keeps the state: #step=12&signal=z

const at = (id) => document.getElementById(id);
const WHOLE = ["step", "target", "about", "layer", "unit", "what"];

class App {
  constructor(data) {
    this.data = data;
    this.state = { step: data.start, target: 0, about: 0, layer: 0, signal: data.layers[0].signals[0].name, order: Object.keys(data.layers[0].orders)[0], unit: data.layers[0].orders["most active first"][0], shade: "dependence", zoom: "letters", what: 0 };
    if (data.kind === "forecast") this.state.target = Math.min(6, data.targets.length - 1);
    this.peek = null;  // what the pointer looks at, not chosen yet
    this.reader = new (data.kind === "characters" ? Passage : Chart)(data, at("reader"));
    this.heat = new HeatMap(data);
    this.readAddress();
    this.buildControls();
    this.listen();
    this.redraw();
  }

  get layer() { return this.data.layers[this.state.layer]; }
  get signal() { return this.layer.signals.find((each) => each.name === this.state.signal) ?? this.layer.signals[0]; }
  get shown() { return { ...this.state, ...this.peek }; }

  readAddress() {
    const given = new URLSearchParams(location.hash.slice(1)), { data, state } = this;
    for (const [key, text] of given) if (key in state) state[key] = WHOLE.includes(key) ? Number(text) : text;
    const clip = (key, count) => { state[key] = Math.min(count - 1, Math.max(0, Math.trunc(state[key]) || 0)); };
    clip("step", data.steps);
    clip("target", data.targets.length);
    clip("about", data.dependences.length);
    clip("layer", data.layers.length);
    clip("what", (data.whatIfs ?? []).length + 1);
    clip("unit", this.layer.units.length);
    if (!(state.order in this.layer.orders)) state.order = Object.keys(this.layer.orders)[0];
    state.signal = this.signal.name;
  }

  writeAddress() {
    const text = new URLSearchParams(Object.entries(this.state)).toString();
    history.replaceState(null, "", "#" + text);
  }

  // --- controls -------------------------------------------------------------------------------------------------

  buildControls() {
    const { data } = this, characters = data.kind === "characters";
    at("step").max = data.steps - 1;
    this.choice("target", "explain", data.targets.map((name, i) => [i, name]));
    this.choice("about", "depends on", data.dependences.map((each, i) => [i, each.name]));
    if (characters) this.choice("shade", "shade by", [["dependence", "what it depends on"], ["unit", "the chosen unit"]]);
    if (!characters) this.choice("what", "what if", [[0, "as given"], ...data.whatIfs.map((each, i) => [i + 1, each.words])]);
    this.choice("layer", "layer", data.layers.map((each, i) => [i, each.name]));
    this.choice("signal", "show", this.layer.signals.map((each) => [each.name, each.name, each.kind]));
    this.choice("order", "units", Object.keys(this.layer.orders).map((name) => [name, name]));
    if (characters) this.choice("zoom", "width", [["letters", "letter by letter"], ["whole", "the whole passage"]]);
    at("unit").max = this.layer.units.length - 1;
    this.fillControls();
  }

  // Few choices side by side, many in a list; a single one needs none.
  choice(key, title, options) {
    const home = at(key);
    home.replaceChildren();
    if (options.length < 2) return;
    const many = options.length > 9;
    const take = (value) => this.choose({ [key]: WHOLE.includes(key) ? Number(value) : value });
    if (many) {
      const list = element("select", { name: key }, ...options.map(([value, name]) => element("option", { value }, name)));
      list.addEventListener("change", () => take(list.value));
      home.append(element("label", { class: "slider" }, title, list));
      return;
    }
    const field = element("fieldset", {}, element("legend", {}, title));
    for (const [value, name, hint] of options) {
      const button = element("input", { type: "radio", name: key, value });
      button.addEventListener("change", () => take(button.value));
      field.append(element("label", hint ? { title: hint } : {}, button, name));
    }
    home.append(field);
  }

  fillControls() {
    for (const key of ["target", "about", "shade", "layer", "signal", "order", "zoom", "what"]) {
      const list = document.querySelector(`select[name=${key}]`);
      if (list) list.value = this.state[key];
      for (const button of document.querySelectorAll(`input[name=${key}]`)) button.checked = button.value === String(this.state[key]);
    }
    at("step").value = this.state.step;
    at("unit").value = this.heatOrder().indexOf(this.state.unit);
  }

  heatOrder() { return this.layer.orders[this.state.order]; }

  // --- events ---------------------------------------------------------------------------------------------------

  listen() {
    at("step").addEventListener("input", () => this.choose({ step: Number(at("step").value) }));
    at("unit").addEventListener("input", () => this.choose({ unit: this.heatOrder()[Number(at("unit").value)] }));
    this.point(at("reader"), (event) => { const step = this.reader.stepAt(event); return step === null ? null : { step }; });
    this.point(at("heat"), (event) => this.heat.at(event));
    for (const id of ["reader", "heat"]) at(id).addEventListener("keydown", (event) => this.key(event));
    addEventListener("hashchange", () => { this.readAddress(); this.fillControls(); this.redraw(); });
    addEventListener("resize", () => this.redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  point(home, find) {
    home.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") this.look(find(event)); });
    home.addEventListener("pointerleave", () => this.look(null));
    home.addEventListener("click", (event) => { const found = find(event); if (found) this.choose(found, false); });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { step } = this.state, last = this.data.steps - 1, order = this.heatOrder(), line = order.indexOf(this.state.unit);
    const steps = { ArrowLeft: step - 1, ArrowRight: step + 1, PageUp: step - 10, PageDown: step + 10, Home: 0, End: last };
    const lines = { ArrowUp: line - 1, ArrowDown: line + 1 };
    if (event.key in steps) this.choose({ step: Math.min(last, Math.max(0, steps[event.key])) });
    else if (event.key in lines) this.choose({ unit: order[Math.min(order.length - 1, Math.max(0, lines[event.key]))] });
    else return;
    event.preventDefault();
  }

  look(peek) {
    if (JSON.stringify(peek) === JSON.stringify(this.peek)) return;
    this.peek = peek;
    if (!this.waiting) this.waiting = requestAnimationFrame(() => { this.waiting = null; this.showStep(); });
  }

  choose(change, reveal = true) {
    const whole = ["layer", "signal", "order", "zoom"].some((key) => key in change);
    if (change.what) change.step = this.data.steps - 1;  // the changed steps lie after the last
    Object.assign(this.state, change);
    if ("layer" in change) { this.state.unit = Math.min(this.state.unit, this.layer.units.length - 1); this.state.signal = this.signal.name; this.buildControls(); }
    this.peek = null;
    this.fillControls();
    this.writeAddress();
    if (whole) this.redraw(); else this.showStep();
    if (reveal && "step" in change) { this.reader.reveal(this.state.step); this.heat.reveal(this.state.step); }
    this.say();
  }

  // --- drawing --------------------------------------------------------------------------------------------------

  redraw() {
    const room = at("heat").clientWidth, chart = this.data.kind === "forecast";
    this.left = chart ? this.reader.left : 0;
    at("map").style.marginLeft = this.left + "px";
    document.body.style.setProperty("--left", this.left + "px");
    const across = chart ? this.reader.across : this.state.zoom === "whole" ? room / this.data.steps : Math.max(9, room / this.data.steps);
    this.heat.draw(this.layer, this.signal, this.state.order, across);
    this.showStep();
    this.reader.reveal(this.state.step);
    this.heat.reveal(this.state.step);
    this.say();
  }

  showStep() {
    const { step, target, about, unit, what } = this.shown, { data, reader, signal } = this;
    const row = dependenceRow(data, about, target, step), each = data.dependences[about];
    const byUnit = this.state.shade === "unit" && data.kind === "characters";
    const largest = Math.max(Math.abs(signal.low), Math.abs(signal.high));
    const weights = byUnit ? data.labels.map((_, t) => signalValue(data, signal, unit, t) / largest) : row.shares;
    reader.show({ step, target, row, weights, byUnit, what });
    at("step-name").textContent = reader.stepName(step);
    at("expects-title").replaceChildren(...reader.heading(step, target));
    at("expects").replaceChildren(...reader.predictions(step, target));
    at("meaning").textContent = byUnit ? `Shaded by ${signal.name} of unit ${this.layer.units[unit]}: blue above zero, orange below.` : each.meaning;
    const changed = step === data.steps - 1 && what ? data.whatIfs[what - 1].says : "";
    if (changed) at("meaning").textContent = `${changed} ${at("meaning").textContent}`;
    this.showDependences(row, step);
    this.heat.mark(step, unit);
    this.showUnit(step, unit);
    document.body.dataset.step = step;
  }

  strongest(row, step, count) {
    const places = Array.from({ length: step + 1 }, (_, t) => t).filter((t) => row.shares[t] !== 0);
    return places.sort((a, b) => Math.abs(row.shares[b]) - Math.abs(row.shares[a])).slice(0, count);
  }

  amount(row, t) {
    if (row.signed) { const v = row.shares[t] * row.largest; return (v > 0 ? "+" : "−") + short(Math.abs(v)); }
    return percent(row.shares[t] / row.shares.reduce((a, b) => a + b, 0));
  }

  showDependences(row, step) {
    const head = element("tr", {}, ...["input", "steps back", row.signed ? "moves it by" : "share"].map((name, i) => element("th", { scope: "col", class: i ? "number" : "" }, name)));
    const rows = this.strongest(row, step, 7).map((t) => element("tr", {},
      element("td", {}, this.reader.inputName(t)),
      element("td", { class: "number" }, String(step - t)),
      element("td", { class: "number" }, this.amount(row, t))));
    at("depends").tHead.replaceChildren(head);
    at("depends").tBodies[0].replaceChildren(...rows);
  }

  showUnit(step, unit) {
    const { data, layer, signal } = this, number = layer.units[unit];
    at("unit-name").textContent = `${number}`;
    const across = this.data.kind === "forecast" ? this.heat.across : (at("line").clientWidth - this.left) / data.steps;
    drawUnitLine(at("line"), data, signal, unit, step, this.left, across);
    at("line-caption").textContent = `${signal.name} of unit ${number} over all steps, from ${short(signal.low)} to ${short(signal.high)}.`;
    const cells = layer.signals.map((each) => element("td", { class: "number" }, signalValue(data, each, unit, step).toFixed(3).replace("-", "−")));
    at("values").tHead.replaceChildren(element("tr", {}, element("th", { scope: "col" }, "at this step"), ...layer.signals.map((each) => element("th", { class: "number", scope: "col" }, each.name))));
    at("values").tBodies[0].replaceChildren(element("tr", {}, element("th", { scope: "row" }, `unit ${number}`), ...cells));
    const value = signalValue(data, signal, unit, step).toFixed(2);
    at("canvas").setAttribute("aria-label", `${signal.name}, a ${signal.kind}, of ${layer.units.length} units over ${data.steps} steps. At the chosen step, unit ${number} is ${value}.`);
  }

  say() {
    const { step, target, about } = this.state, row = dependenceRow(this.data, about, target, step);
    const inputs = this.strongest(row, step, 3).map((t) => `${this.reader.spokenInput(t)}, ${step - t} steps back (${this.amount(row, t)})`);
    at("said").textContent = `${this.reader.sentence(step, target)} It depends most on ${inputs.join("; ")}.`;
    const name = this.data.kind === "characters" ? "The passage" : "The series and its forecast";
    at("reader").setAttribute("aria-label", `${name}. ${this.reader.stepName(step)} is chosen; arrow keys choose another step`);
  }
}

(async () => {
  const main = document.querySelector("main");
  if (typeof DecompressionStream === "undefined") {
    at("trouble").textContent = "This browser is too old for this page: it lacks DecompressionStream (2023).";
    at("trouble").hidden = false;
    return;
  }
  const data = await readData();
  main.hidden = false;
  window.app = new App(data);
  document.body.dataset.ready = "yes";
})();
