// Records the microphone: a worklet passes samples on, which become a WAV file of 16 bits.

import { $, busy, network, status } from "./page.js";

const EVERY = 700; // milliseconds between two predictions while recording

/** Let a button record until it is pressed again; `run` gets the recording, with `live` also what there is so far. */
export function microphone(place, run, { live = false } = {}) {
  place.hidden = false;
  const button = $("record");
  let recording = null;
  button.addEventListener("click", async () => {
    if (recording) return recording.stop();
    try {
      recording = await start();
    } catch (error) {
      recording = null;
      const secure = window.isSecureContext ? "" : "; a browser gives it to pages of this machine or with https alone";
      return status(`there is no microphone to record from (${error.message || error.name})${secure}`, true);
    }
    status("");
  });

  async function start() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const context = new AudioContext();
    await context.audioWorklet.addModule("page/recorder.js");
    const node = new AudioWorkletNode(context, "recorder");
    const parts = [];
    node.port.onmessage = (event) => parts.push(event.data);
    context.createMediaStreamSource(stream).connect(node);
    button.textContent = "Stop";
    const began = Date.now();
    const file = () => wav(parts, context.sampleRate);
    let asked = false;
    const timer = setInterval(async () => {
      const seconds = (Date.now() - began) / 1000;
      $("recorded").textContent = `${seconds.toFixed(0)} s`;
      if (seconds > network.limits.recording - 1) return void stop();
      if (!live || asked || !parts.length) return;
      asked = true;
      try {
        status(await run(file()));
      } catch (error) {
        status(error.message, true);
      }
      asked = false;
    }, EVERY);

    async function stop() {
      clearInterval(timer);
      recording = null;
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      button.textContent = "Record";
      if (!parts.length) return status("nothing was recorded", true);
      const sound = $("sound");
      if (sound) {
        sound.src = URL.createObjectURL(file());
        sound.hidden = false;
      }
      await busy(button, () => run(file()));
    }
    return { stop };
  }
}

function wav(parts, rate) {
  const count = parts.reduce((sum, part) => sum + part.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const word = (at, text) => [...text].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const part of parts) {
    for (const sample of part) {
      view.setInt16(at, Math.round(32767 * Math.min(Math.max(sample, -1), 1)), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
