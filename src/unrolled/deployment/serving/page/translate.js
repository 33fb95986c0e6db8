import { $, ask, element, network, onSubmit, onTheme } from "./page.js";
import { alignment } from "./alignment.js";

$("beams").max = network.settings.beams;
let redraws = [];
onTheme(() => redraws.forEach((redraw) => redraw()));

onSubmit($("form"), async () => {
  const answer = await ask("translate", { text: $("text").value, num_beams: Number($("beams").value) });
  const [best, ...others] = answer.translations;
  $("result").hidden = false;
  $("best").textContent = best ? best.text : "";
  $("others").hidden = others.length === 0;
  $("others").querySelector("tbody").replaceChildren(
    ...others.map(({ score, text }) =>
      element("tr", {}, element("td", { textContent: score.toFixed(3) }), element("td", { textContent: text }))),
  );
  redraws = [];
  $("pieces").replaceChildren();
  for (const piece of answer.pieces) if (piece.weights) redraws.push(alignment($("piece"), $("pieces"), piece));
  return answer.pieces.length === 0 ? "the text has no symbol that the network knows" : "";
});
