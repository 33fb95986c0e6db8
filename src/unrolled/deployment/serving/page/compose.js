import { $, ask, network, onSubmit } from "./page.js";

$("frames").max = network.settings.frames;

onSubmit($("form"), async () => {
  const number = (id) => Number($(id).value);
  const answer = await ask("compose", { frames: number("frames"), temperature: number("temperature"), tempo: number("tempo") });
  $("result").hidden = false;
  $("sound").src = answer.sound;
  $("picture").src = answer.picture;
  return `${answer.frames.length} frames, ${network.settings.steps_per_beat} a beat`;
});
