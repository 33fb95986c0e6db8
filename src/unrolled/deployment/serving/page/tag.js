import { $, ask, element, network, onSubmit, percent } from "./page.js";

const tags = network.settings.tags;
// The outside tag has no color; B- and I- of a span have one.
const groups = [...new Set(tags.map((tag) => tag.replace(/^[BIESLU]-/, "")))].filter((group) => group !== "O");
const colorOf = (tag) => {
  const number = groups.indexOf(tag.replace(/^[BIESLU]-/, ""));
  return number < 0 ? "var(--soft)" : `var(--c${number % 8})`;
};

onSubmit($("form"), async () => {
  const { sentences } = await ask("tag", { text: $("text").value });
  $("sentences").replaceChildren(
    ...sentences.map((words) => {
      const line = element("p", { className: "words" });
      for (const { word, tag, probability } of words) {
        const span = element("span", { title: percent(probability) }, word, element("small", { textContent: tag }));
        span.style.setProperty("--tag", colorOf(tag));
        line.append(span);
      }
      return line;
    }),
  );
  return sentences.length ? "" : "there are no words";
});
