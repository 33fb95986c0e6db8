// Attention of written symbols over the symbols of a source, as a map and as shades of the source.

import { color, element, mix, pen, visible, walk } from "./page.js";

const CELL = 16; // pixels of a weight

function spans(place, symbols) {
  // Whole words, unlike characters and subwords, have no white space of their own.
  place.classList.toggle("spaced", symbols.some((symbol) => symbol.length > 1) && !symbols.some((symbol) => /[\s▁]/.test(symbol)));
  place.replaceChildren(
    ...symbols.map((symbol, number) => {
      const span = element("span", { textContent: symbol || " " });
      span.dataset.number = number;
      return span;
    }),
  );
}

/** Add a copy of a template for a piece, and return what redraws it. */
export function alignment(template, place, piece) {
  const figure = template.content.cloneNode(true).firstElementChild;
  place.append(figure);
  const [source, written, canvas, here] = [".source", ".written", "canvas", ".here"].map((part) => figure.querySelector(part));
  const rows = [...piece.written, "<end>"];
  spans(source, piece.source);
  spans(written, rows);
  const room = (symbols) => 14 + 7.5 * Math.max(...symbols.map((symbol) => short(symbol).length));
  const LEFT = Math.ceil(room(rows)), TOP = Math.ceil(room(piece.source));
  const highest = Math.max(...piece.weights.flat());
  let row = -1, column = -1;

  function draw() {
    const width = LEFT + piece.source.length * CELL + 4, height = TOP + rows.length * CELL + 4;
    const context = pen(canvas, width, height);
    context.font = "12px ui-monospace, monospace";
    context.fillStyle = color("--ink");
    rows.forEach((symbol, at) => {
      context.textAlign = "right";
      context.fillText(short(symbol), LEFT - 6, TOP + at * CELL + 12);
    });
    piece.source.forEach((symbol, at) => {
      context.save();
      context.translate(LEFT + at * CELL + 11, TOP - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(short(symbol), 0, 0);
      context.restore();
    });
    piece.weights.forEach((weights, y) => weights.forEach((weight, x) => {
      context.fillStyle = mix("--accent", weight / highest);
      context.fillRect(LEFT + x * CELL, TOP + y * CELL, CELL - 1, CELL - 1);
    }));
    context.strokeStyle = color("--warm");
    context.lineWidth = 2;
    if (row >= 0) context.strokeRect(LEFT - 1, TOP + row * CELL - 1, piece.source.length * CELL + 1, CELL + 1);
    if (column >= 0) context.strokeRect(LEFT + column * CELL - 1, TOP + row * CELL - 1, CELL + 1, CELL + 1);
    [...source.children].forEach((span, at) => {
      const share = row < 0 ? 0 : piece.weights[row][at];
      span.style.background = share > 0 ? mix("--accent", share) : "";
      span.style.color = share > 0.6 ? "var(--on-accent)" : "";
    });
    [...written.children].forEach((span, at) => span.toggleAttribute("aria-current", at === row));
  }

  function choose(to, x = -1) {
    [row, column] = [to, x];
    const weights = piece.weights[row];
    const most = weights.indexOf(Math.max(...weights));
    const at = x < 0 ? most : x;
    here.textContent = `${visible(rows[row])} ← ${visible(piece.source[at])}: ${weights[at].toFixed(2)}` +
      (x < 0 || at === most ? "" : ` (most: ${visible(piece.source[most])}, ${weights[most].toFixed(2)})`);
    draw();
  }

  const walking = walk(written, () => rows.length, choose);
  canvas.addEventListener("mousemove", (event) => {
    const x = Math.floor((event.offsetX - LEFT) / CELL), y = Math.floor((event.offsetY - TOP) / CELL);
    if (x < 0 || y < 0 || x >= piece.source.length || y >= rows.length) return;
    walking.set(y);
    choose(y, x);
  });
  draw();
  return draw;
}

function short(symbol) {
  const shown = visible(symbol);
  return shown.length > 10 ? `${shown.slice(0, 9)}…` : shown;
}
