// What the pages share: numbers out of text, elements, and parts that come when they are wanted.
"use strict";
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const numbers = (text, kind) => new kind(bytes(text).buffer);
const el = (name, props = {}, ...inner) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(props))
    key in made && !key.startsWith("aria") ? made[key] = value : made.setAttribute(key, value);
  made.append(...inner);
  return made;
};
const waiting = {};
globalThis.explorePart = (name, text) => waiting[name](text);
function part(name) {                              // in this page, or in a script beside it
  if (name in EXPLORE.parts) return Promise.resolve(EXPLORE.parts[name]);
  return new Promise((good, bad) => {
    waiting[name] = good;
    document.head.append(el("script", { src: `${EXPLORE.folder}/${name}.js`, onerror: () => bad(new Error(`${name} did not arrive`)) }));
  });
}
