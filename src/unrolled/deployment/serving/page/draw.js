import { $, ask, network, onFile, onSubmit } from "./page.js";

$("num").max = network.settings.images;

function show(answer) {
  $("result").hidden = false;
  $("picture").src = answer.picture;
  return answer.bound === undefined ? "" : `−log p of the image is at most ${answer.bound.toFixed(1)} nats`;
}

onSubmit($("form"), async () => show(await ask("draw", { num: Number($("num").value) })));
onFile($("drop"), async (file) => show(await ask("redraw", file)));
