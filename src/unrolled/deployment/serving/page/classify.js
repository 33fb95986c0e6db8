import { $, ask, bars, element, network, notices, onFile, onSubmit } from "./page.js";
import { microphone } from "./microphone.js";

const { reads, numbers, channels } = network.settings;

function show(answer) {
  if (numbers) {
    $("numbers").hidden = false;
    $("numbers").querySelector("tbody").replaceChildren(
      ...Object.entries(answer.numbers).map(([name, value]) =>
        element("tr", {}, element("th", { textContent: name }), element("td", { textContent: value }))),
    );
  } else {
    $("label").textContent = answer.label || "no label";
    bars($("bars"), answer.probabilities);
  }
  return notices(answer.notices);
}

if (reads === "text" || reads === "series") {
  $("text-form").hidden = false;
  if (reads === "series") {
    $("text-name").textContent = `A series as CSV, with the columns ${channels.join(", ")} and a row for each step`;
    $("text").placeholder = `${channels.join(",")}\n${channels.map(() => "0.0").join(",")}`;
    $("text").spellcheck = false;
    $("table-name").hidden = false;
    $("table").addEventListener("change", async () => {
      $("text").value = await $("table").files[0].text();
      $("text-form").requestSubmit();
    });
  }
  onSubmit($("text-form"), async () => show(await ask("classify", { text: $("text").value })));
} else {
  const picture = reads === "pictures";
  $("drop").hidden = false;
  $("file").accept = picture ? "image/*" : "audio/*";
  $("file-name").textContent = `${picture ? "An image" : "A recording"}: choose it, or drop it here`;
  onFile($("drop"), async (file) => {
    const shown = picture ? $("picture") : $("sound");
    shown.src = URL.createObjectURL(file);
    shown.hidden = false;
    return show(await ask("classify", file));
  });
  if (!picture) microphone($("speak"), async (file) => show(await ask("classify", file)), { live: true });
}
