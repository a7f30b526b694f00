// A slider through frames: pictures with a line of text each, and a sentence.
const D = EXPLORE, { frames, side: [high, wide], columns, sheet } = D;
const px = 64, scale = px / Math.max(high, wide);
const tile = (at, label) => {
  const made = el("div", { className: "tile", role: "img", "aria-label": label || D.title });
  Object.assign(made.style, { width: `${wide * scale + 2}px`, height: `${high * scale + 2}px`, backgroundImage: `url(${sheet})`, backgroundSize: `${columns * wide * scale}px auto`,
    backgroundPosition: `${-(at % columns) * wide * scale}px ${-Math.floor(at / columns) * high * scale}px` });
  return made;
};
const said = el("p", { "aria-live": "polite" }), near = el("div", { className: "near flip" }), value = el("output");
function show(i) {
  const frame = frames[i];
  value.textContent = frame.value;
  said.textContent = frame.text;
  near.replaceChildren(...frame.pictures.map((at, j) => el("figure", {}, tile(at, frame.texts[j]), el("figcaption", {}, frame.texts[j]))));
}
const input = el("input", { type: "range", min: 0, max: frames.length - 1, step: 1, value: D.start, "aria-label": D.label, oninput: () => show(+input.value) });
const step = (text, by, name) => el("button", { "aria-label": name, onclick: () => { input.value = +input.value + by; show(+input.value); } }, text);
document.querySelector("main").replaceChildren(el("p", {}, el("strong", {}, D.title)), el("div", { className: "row" }, step("‹", -1, "one back"), input, step("›", 1, "one on"), el("span", {}, `${D.label} `, value)), near, said);
show(D.start);
let tallest = 0;                                   // the frame grows with its content, and does not jump back
new ResizeObserver(() => { tallest = Math.max(tallest, document.body.offsetHeight + 4); if (frameElement) frameElement.style.height = `${tallest}px`; }).observe(document.body);
