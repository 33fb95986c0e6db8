// What all pages share: requests, server-sent events, messages, and small parts of a page.

export const $ = (id) => document.getElementById(id);

/** What the server says about the network. */
export const network = await (await fetch("api/network")).json();

$("facts").textContent = [network.checkpoint, ...network.facts].filter(Boolean).join(" · ");

export function status(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

/** Send JSON, or a file as it is; return the answer, or throw an Error with the server's sentence. */
export async function ask(route, body, signal) {
  const response = await send(route, body, signal);
  return response.json();
}

async function send(route, body, signal) {
  const file = body instanceof Blob;
  const headers = { "content-type": file ? "application/octet-stream" : "application/json" };
  let response;
  try {
    response = await fetch(`api/${route}`, { method: "POST", headers, body: file ? body : JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("the server does not answer; is it still running?");
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Error(answer.error || `the server answered ${response.status}`);
  }
  return response;
}

/** Yield the server-sent events of a request. */
export async function* events(route, body, signal) {
  const reader = (await send(route, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const event = JSON.parse(part.slice("data: ".length));
      if (event.error) throw new Error(event.error);
      yield event;
    }
  }
}

/** Run the function of a form when it is submitted, one call at a time; errors go to the status line. */
export function onSubmit(form, run) {
  const button = form.querySelector("button[type=submit], button:not([type])");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    await busy(button, run);
  });
  for (const area of form.querySelectorAll("textarea")) {
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }
}

export async function busy(button, run) {
  button.disabled = true;
  status("…");
  try {
    const told = await run();
    status(told || "");
  } catch (error) {
    if (error.name === "AbortError") status("stopped");
    else status(error.message, true);
  } finally {
    button.disabled = false;
  }
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Return a symbol with signs for white space. */
export const visible = (symbol) =>
  symbol.replace(/\n/g, "↵").replace(/\t/g, "→").replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)) || "∅";

export const percent = (share) => (share < 0.0005 && share > 0 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

/** Fill a <dl class="bars"> with names and shares. */
export function bars(list, pairs) {
  list.replaceChildren(
    ...pairs.flatMap(([name, share]) => {
      const bar = element("div");
      bar.style.width = `${100 * share}%`;
      const frame = element("div", { className: "bar", ariaHidden: "true" }, bar);
      return [element("dt", { textContent: name }), element("dd", {}, frame), element("dd", { textContent: percent(share) })];
    }),
  );
}

export function notices(list) {
  return (list || []).join("; ");
}

/** Let a file be chosen or dropped, and call `run` with it. */
export function onFile(zone, run) {
  const input = zone.querySelector("input[type=file]");
  const chosen = (file) => file && busy(input, () => run(file));
  input.addEventListener("change", () => chosen(input.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", kind === "dragover");
      if (kind === "drop") chosen(event.dataTransfer.files[0]);
    });
  }
}

/** Insert an SVG of the server, parsed as such. */
export function drawing(place, source) {
  const svg = new DOMParser().parseFromString(source, "image/svg+xml").documentElement;
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  place.replaceChildren(document.importNode(svg, true));
}

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Call `redraw` when the browser changes between light and dark. */
export function onTheme(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

/** Return a canvas's pen for a size in CSS pixels, sharp on any screen. */
export function pen(canvas, width, height) {
  const scale = Math.min(devicePixelRatio || 1, 16000 / Math.max(width, height, 1));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const found = canvas.getContext("2d");
  found.setTransform(scale, 0, 0, scale, 0, 0);
  return found;
}

/** Mix a color into the paper. */
export function mix(name, share) {
  return `color-mix(in srgb, ${color(name)} ${Math.round(100 * Math.min(Math.max(share, 0), 1))}%, ${color("--paper")})`;
}

/** Let the arrow keys move through the spans of an element, and the mouse choose one; `chosen` gets the number. */
export function walk(place, count, chosen) {
  let at = -1;
  const go = (to) => {
    at = Math.min(Math.max(to, 0), count() - 1);
    if (at >= 0) chosen(at);
  };
  place.tabIndex = 0;
  place.addEventListener("keydown", (event) => {
    const last = count() - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to);
  });
  place.addEventListener("mouseover", (event) => {
    const number = event.target.dataset?.number;
    if (number !== undefined) go(Number(number));
  });
  return { set: (to) => { at = to; } };
}
