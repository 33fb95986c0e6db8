import { $, ask, element, onFile, walk } from "./page.js";

let found = null;

onFile($("drop"), async (file) => {
  found = await ask("caption", file);
  $("result").hidden = $("told").hidden = false;
  $("picture").src = found.picture;
  $("best").replaceChildren(
    ...found.written.map((word, number) => {
      const span = element("span", { textContent: word });
      span.dataset.number = number;
      return span;
    }).flatMap((span) => [span, " "]),
  );
  const others = found.captions.slice(1);
  $("others").hidden = others.length === 0;
  $("others").querySelector("ul").replaceChildren(...others.map(({ text }) => element("li", { textContent: text })));
  look(-1);
});

const walking = walk($("best"), () => (found?.weights ? found.written.length : 0), look);
$("best").addEventListener("mouseleave", () => {
  walking.set(-1);
  look(-1);
});

/** Darken the image where a word's attention is small. */
function look(word) {
  const canvas = $("overlay");
  [...$("best").children].forEach((span, number) => span.toggleAttribute("aria-current", number === word));
  const weights = found.weights?.[word];
  const side = weights ? Math.round(Math.sqrt(weights.length)) : 0;
  canvas.hidden = !weights || side * side !== weights.length;
  if (canvas.hidden) return;
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const most = Math.max(...weights);
  weights.forEach((weight, region) => {
    context.fillStyle = `rgb(0 0 0 / ${(0.85 * (1 - weight / most)).toFixed(3)})`;
    context.fillRect(region % side, Math.floor(region / side), 1, 1);
  });
  $("here").textContent = `${found.written[word]}: the greatest weight of a region is ${most.toFixed(2)}`;
}
