import { $, ask, drawing, network, onSubmit } from "./page.js";

if (!network.settings.reads_text) $("text").hidden = $("text-name").hidden = true;
$("text").maxLength = network.settings.most;
$("bias").addEventListener("input", () => { $("bias-shown").textContent = Number($("bias").value).toFixed(1); });

onSubmit($("form"), async () => {
  const answer = await ask("write", { text: $("text").value, bias: Number($("bias").value) });
  $("result").hidden = false;
  drawing($("picture"), answer.picture);
  const unfinished = answer.unfinished.map((text) => `“${text}”`).join(", ");
  return unfinished && `the network didn't come to the end of ${unfinished}; try again, or more neatness`;
});
