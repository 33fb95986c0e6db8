import { $, bars, busy, color, element, events, mix, network, onTheme, pen, percent, status, visible, walk } from "./page.js";

const COLUMN = 11, ROW = 3, HEAD = 16, MOST = 600; // pixels of a symbol and of a unit, of the symbols' row; columns
const symbols = []; // {text, given, probability, odds, values}, the first one stands for the beginning
let layers = null; // of the events
let current = -1; // the symbol that is looked at; -1 for the last one
let running = null; // an AbortController

const { unit } = network.settings;
$("odds-title").textContent = `Odds of the next ${unit}`;
$("length-name").textContent = `${unit[0].toUpperCase()}${unit.slice(1)}s`;
$("length").max = network.limits.steps;

const options = (length) => ({
  prompt: $("prompt").value,
  length,
  temperature: Number($("temperature").value),
  seed: $("seed").value === "" ? null : Number($("seed").value),
  gates: true,
});

/** Read a beginning, and write `length` symbols after it. */
async function read(length) {
  running?.abort();
  const mine = (running = new AbortController());
  $("stop").disabled = length === 0;
  let fresh = true;
  try {
    for await (const event of events("sample", options(length), mine.signal)) {
      if (event.end) break;
      if (fresh) start(event);
      fresh = false;
      add(event);
    }
  } finally {
    if (running === mine) {
      running = null;
      $("stop").disabled = true;
    }
  }
  return length ? `${symbols.filter((symbol) => !symbol.given).length} ${unit}s written` : "";
}

function start(event) {
  symbols.length = 0;
  current = -1;
  walking.set(-1);
  $("text").replaceChildren();
  if (event.layers) setLayers(event.layers);
}

function add(event) {
  const values = event.values && Uint8Array.from(atob(event.values), (letter) => letter.charCodeAt(0));
  symbols.push({ ...event, values });
  if (symbols.length > 1) {
    const span = element("span", { textContent: event.text, className: event.given ? "given" : "" });
    span.dataset.number = symbols.length - 2;
    shade(span, symbols.length - 1);
    $("text").append(span);
    $("text").scrollTop = $("text").scrollHeight;
  }
  if (current < 0) show(symbols.length - 1);
  plan();
}

/** Show the odds after a symbol. */
function show(number) {
  const { text, odds, probability, given } = symbols[number];
  bars($("odds"), odds.map(([symbol, share]) => [visible(symbol), share]));
  const before = $("text").querySelector("[aria-current]");
  before?.removeAttribute("aria-current");
  if (current >= 0) {
    $("text").children[number - 1]?.setAttribute("aria-current", "true");
    const unitNow = chosen() ? `; ${$("value").value} of unit ${$("unit").value} is ${valueAt(number).toFixed(2)}` : "";
    const had = `had the odds ${percent(probability)}`;
    $("here").textContent = `${visible(text)}, symbol ${number}${given ? " of the beginning" : ""}, ${had}${unitNow}`;
  }
}

const walking = walk($("text"), () => symbols.length - 1, (number) => {
  current = number + 1;
  show(current);
  plan();
});

function setLayers(found) {
  const same = layers && JSON.stringify(found) === JSON.stringify(layers);
  layers = found;
  if (same) return;
  $("layer").replaceChildren(...layers.map((layer, number) => new Option(layer.name, number)));
  $("layer").value = layers.length - 1;
  setLayer();
}

function setLayer() {
  const layer = layers[$("layer").value];
  $("value").replaceChildren(...layer.values.map(({ name }) => new Option(name, name)));
  $("value").value = layer.first;
  $("unit").replaceChildren(...layer.units.map((number) => new Option(number, number)));
  refresh();
}

/** Where the values of the chosen layer and name begin within a step's bytes. */
function chosen() {
  if (!layers) return null;
  let offset = 0;
  for (const [number, layer] of layers.entries()) {
    for (const value of layer.values) {
      if (number === Number($("layer").value) && value.name === $("value").value) return { offset, layer, value };
      offset += layer.units.length;
    }
  }
  return null;
}

function valueAt(number) {
  const { offset, layer, value } = chosen();
  const byte = symbols[number].values[offset + layer.units.indexOf(Number($("unit").value))];
  return value.low + (byte / 255) * (value.high - value.low);
}

/** The color of a value: the accent for a gate; the accent or a warm color for a signed value. */
function tint(value, low, high) {
  if (low >= 0) return mix("--accent", 0.85 * value / high);
  return mix(value < 0 ? "--warm" : "--accent", 0.85 * Math.abs(value) / high);
}

function shade(span, number) {
  const how = $("shade").value;
  const { probability, values } = symbols[number];
  let background = "";
  if (how === "surprise") background = mix("--warm", Math.min(-Math.log2(Math.max(probability, 1e-9)) / 8, 1) * 0.7);
  else if (how === "unit" && values && chosen()) {
    const { value } = chosen();
    background = tint(valueAt(number), value.low, value.high);
    const strong = value.low >= 0 ? valueAt(number) / value.high : Math.abs(valueAt(number)) / value.high;
    span.style.color = strong > 0.6 ? "var(--on-accent)" : "";
  }
  if (how !== "unit") span.style.color = "";
  span.style.background = background;
}

function refresh() {
  const found = chosen();
  if (found) {
    const { low, high, name } = found.value;
    const colors = low < 0 ? `from ${low} (orange) through 0 (empty) to ${high} (blue)` : "from 0 (empty) to 1 (blue)";
    $("legend").textContent = `${name}, ${colors}: a column for each ${unit} that was read, a row for each unit` +
      ` (${found.layer.units.length} shown). A click on a row shades the text by its unit.`;
  }
  [...$("text").children].forEach((span, number) => shade(span, number + 1));
  if (current >= 0) show(current);
  plan();
}

let planned = false;
function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    draw();
  });
}

const first = () => Math.max(0, symbols.length - MOST);

/** Draw the strip of gates: symbols above, units below. */
function draw() {
  const found = chosen();
  if (!found || !symbols.length || !symbols[0].values) return;
  const { offset, layer, value } = found;
  const shown = symbols.slice(first());
  const strip = $("strip");
  const atEnd = strip.scrollLeft + strip.clientWidth >= strip.scrollWidth - 3 * COLUMN;
  const context = pen($("gates"), shown.length * COLUMN, HEAD + layer.units.length * ROW);
  const colors = Array.from({ length: 33 }, (_, step) => tint(value.low + (step / 32) * (value.high - value.low), value.low, value.high));
  context.font = "11px ui-monospace, monospace";
  context.textAlign = "center";
  shown.forEach((symbol, column) => {
    context.fillStyle = symbol.given ? color("--soft") : color("--ink");
    const letter = [...visible(symbol.text || " ")][0];
    context.fillText(column + first() === 0 ? "·" : letter, (column + 0.5) * COLUMN, 11);
    for (let row = 0; row < layer.units.length; row++) {
      context.fillStyle = colors[Math.round((symbol.values[offset + row] / 255) * 32)];
      context.fillRect(column * COLUMN, HEAD + row * ROW, COLUMN, ROW);
    }
  });
  context.strokeStyle = color("--warm");
  context.lineWidth = 1.5;
  const row = layer.units.indexOf(Number($("unit").value));
  context.strokeRect(0, HEAD + row * ROW - 1, shown.length * COLUMN, ROW + 2);
  if (current >= first()) context.strokeRect((current - first()) * COLUMN, 1, COLUMN, HEAD + layer.units.length * ROW - 2);
  if (current < 0 && atEnd) strip.scrollLeft = strip.scrollWidth;
  const place = (current - first()) * COLUMN;
  if (current >= first() && !strip.matches(":hover") && (place < strip.scrollLeft || place > strip.scrollLeft + strip.clientWidth - COLUMN)) {
    strip.scrollLeft = place - strip.clientWidth / 2;
  }
}

function unitAt(row) {
  const { units } = chosen().layer;
  $("unit").value = units[Math.min(Math.max(row, 0), units.length - 1)];
  $("shade").value = "unit";
  refresh();
}

$("gates").addEventListener("mousemove", (event) => {
  const number = first() + Math.floor(event.offsetX / COLUMN);
  if (number < 1 || number >= symbols.length) return;
  current = number;
  walking.set(number - 1);
  show(number);
  plan();
});
$("gates").addEventListener("click", (event) => unitAt(Math.floor((event.offsetY - HEAD) / ROW)));
$("gates").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !chosen()) return;
  event.preventDefault();
  unitAt(chosen().layer.units.indexOf(Number($("unit").value)) + step);
});

$("layer").addEventListener("change", setLayer);
for (const id of ["value", "unit", "shade"]) {
  $(id).addEventListener("change", () => {
    if (id === "unit") $("shade").value = "unit";
    refresh();
  });
}
onTheme(refresh);
$("stop").addEventListener("click", () => running?.abort());

let typed = 0;
const preview = () => {
  clearTimeout(typed);
  typed = setTimeout(() => {
    if (!$("write").disabled) read(0).then(() => status(""), (error) => error.name !== "AbortError" && status(error.message, true));
  }, 250);
};
$("prompt").addEventListener("input", preview);
$("temperature").addEventListener("input", () => {
  $("temperature-shown").textContent = Number($("temperature").value).toFixed(2);
  preview();
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typed);
  if (!$("write").disabled) busy($("write"), () => read(Number($("length").value)));
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
preview();
