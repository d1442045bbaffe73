"use strict";
// What the page holds, unpacked: the other half of packing.py.

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpack(packed) {
  const codes = await inflate(packed.data);
  if (packed.delta) for (let i = 1; i < codes.length; i++) codes[i] += codes[i - 1];  // modulo 256, as written
  return { codes, levels: packed.levels };
}

async function readData() {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const layer of data.layers)
    for (const signal of layer.signals) Object.assign(signal, await unpack(signal.packed));
  for (const each of data.dependences) Object.assign(each, await unpack(each.packed));
  data.steps = data.labels.length;
  return data;
}

// The value of a signal for the unit at a place of the file (not its number), at a step.
function signalValue(data, signal, place, step) {
  const share = signal.codes[place * data.steps + step] / signal.levels;
  return signal.low + share * (signal.high - signal.low);
}

// How the prediction of a step depends on each input: shares of the largest, -1 ... 1, and what 1 stands for.
function dependenceRow(data, about, target, step) {
  const each = data.dependences[about], T = data.steps;
  const start = (target * T + step) * T, shares = new Float64Array(T);
  const middle = each.signed ? each.levels >> 1 : 0, scale = each.signed ? each.levels >> 1 : each.levels;
  for (let t = 0; t <= step; t++) {
    const root = (each.codes[start + t] - middle) / scale;
    shares[t] = root * Math.abs(root);
  }
  return { shares, largest: each.largest[target][step], signed: each.signed };
}
