import { $, ask, drawing, element, network, notices, onSubmit } from "./page.js";

const { columns, horizon, levels } = network.settings;
const share = (edge) => `${Math.round(100 * (levels.at(-1 - edge) - levels[edge]))} %`;
$("table-name").textContent = `A table as CSV, with the columns ${columns.join(", ")}`;
$("table").placeholder = columns.join(",");
$("horizon").max = $("horizon").value = horizon;
$("legend").textContent = levels.length
  ? `The line is the forecast; a number lies within the wide band with the probability ${share(0)}, within the narrow one with ${share(1)}.`
  : "The line is the forecast; this network predicts no intervals.";

$("file").addEventListener("change", async () => {
  if (!$("file").files[0]) return;
  $("table").value = await $("file").files[0].text();
  $("form").requestSubmit();
});

onSubmit($("form"), async () => {
  const answer = await ask("forecast", { text: $("table").value, horizon: Number($("horizon").value) });
  $("result").hidden = false;
  drawing($("picture"), answer.picture);
  const names = Object.keys(answer.rows[0] || {});
  const cell = (value) => element("td", { textContent: typeof value === "number" ? value.toPrecision(6) : value ?? "" });
  $("rows").tHead.replaceChildren(element("tr", {}, ...names.map((name) => element("th", { textContent: name }))));
  $("rows").tBodies[0].replaceChildren(
    ...answer.rows.map((row) => element("tr", {}, ...names.map((name) => cell(row[name])))),
  );
  return notices(answer.notices);
});
