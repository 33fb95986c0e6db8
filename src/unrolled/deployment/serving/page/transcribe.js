import { $, ask, network, notices, onFile } from "./page.js";
import { microphone } from "./microphone.js";

const picture = network.settings.reads === "pictures";

function show(answer) {
  $("transcript").textContent = answer.text || "(nothing)";
  $("sure").textContent = `log probability ${answer.log_probability.toFixed(2)}` +
    (answer.labels.length ? `; frames ${answer.labels.map(({ label, frame }) => `${label} ${frame}`).join(", ")}` : "");
  return notices(answer.notices);
}

$("file").accept = picture ? "image/*" : "audio/*";
$("file-name").textContent = `${picture ? "An image of a line of text" : "A recording"}: choose it, or drop it here`;
onFile($("drop"), async (file) => {
  const shown = picture ? $("picture") : $("sound");
  shown.src = URL.createObjectURL(file);
  shown.hidden = false;
  return show(await ask("transcribe", file));
});
if (!picture) microphone($("speak"), async (file) => show(await ask("transcribe", file)), { live: true });
