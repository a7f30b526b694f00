// Draw a garment: at each stroke the nearest average, learned prototypes and training images.
// EXPLORE holds averages and prototypes; the training images arrive when they are first wanted.
const D = EXPLORE, SIDE = 28, SIZE = SIDE * SIDE;
async function unpacked(text) {                    // images whose rows came less the row above
  const images = new Uint8Array(await new Response(new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  for (let i = 0; i < images.length; i++) if (i % SIZE >= SIDE) images[i] += images[i - SIDE];
  return images;
}

// --- what Python does, too: distances, neighbours, votes ----------------------------------------
const averages = numbers(D.averages, Float64Array), lvq = { axes: numbers(D.lvq.axes, Float32Array), mean: numbers(D.lvq.mean, Float32Array), prototypes: numbers(D.lvq.prototypes, Float32Array), labels: numbers(D.lvq.labels, Uint16Array) };
const train = { images: null, labels: numbers(D.train.labels, Uint16Array), rows: numbers(D.train.rows, Int32Array), n: 0 };
const names = D.names, whole = D.train.labels && train.labels.length;

// far(row, limit) is the distance of a row, or anything beyond limit where that is sure to be reached
function nearest(n, k, far) {                      // nearest first, equal distances by lower index
  const distances = new Float64Array(k).fill(Infinity), indices = new Int32Array(k).fill(-1);
  for (let row = 0; row < n; row++) {
    const here = far(row, distances[k - 1]);
    if (here >= distances[k - 1]) continue;
    let place = k - 1;
    for (; place > 0 && here < distances[place - 1]; place--) { distances[place] = distances[place - 1]; indices[place] = indices[place - 1]; }
    distances[place] = here; indices[place] = row;
  }
  return { indices, distances };
}
const cosine_of = (dot, norm, other) => norm && other ? Math.max(0, 1 - dot / Math.sqrt(norm * other)) : 1;
function plain(points, x, metric, norms) {         // every number of every row
  const size = x.length, [norm] = norms_of(x, 1);
  return row => {
    let sum = 0;
    for (let i = 0, at = row * size; i < size; i++, at++) {
      const d = x[i] - points[at];
      sum += metric === "cosine" ? x[i] * points[at] : metric === "euclidean" ? d * d : Math.abs(d);
    }
    return metric === "cosine" ? cosine_of(sum, norm, norms[row]) : sum;
  };
}
// Images by whole numbers, exactly. The sums of 4 x 4 tiles of 7 x 7 pixels cannot be further apart than the pixels: by the
// triangle inequality, and for squares by that of Cauchy and Schwarz. Most images are too far by their tiles. One function for
// each metric: a browser compiles plain loops over arrays of one kind into the quickest code.
const TILE = 7, TILES = 16, tile_of = Uint8Array.from({ length: SIZE }, (_, i) => Math.floor(i / SIDE / TILE) * 4 + Math.floor(i % SIDE / TILE));
function tiles_of(images) {
  const n = images.length / SIZE, out = new Int32Array(n * TILES);
  for (let row = 0; row < n; row++) for (let i = 0; i < SIZE; i++) out[row * TILES + tile_of[i]] += images[row * SIZE + i];
  return out;
}
const measured = images => ({ images, n: images.length / SIZE, norms: norms_of(images, images.length / SIZE), tiles: tiles_of(images) });
const measures = {
  euclidean(x, own) {
    const { images, tiles } = train;
    return (row, limit) => {
      let low = 0, sum = 0;
      for (let t = 0, at = row * TILES; t < TILES; t++, at++) { const d = own[t] - tiles[at]; low += d * d; }
      if (low >= limit * TILE * TILE) return Infinity;
      for (let i = 0, at = row * SIZE; i < SIZE; i++, at++) { const d = x[i] - images[at]; sum += d * d; }
      return sum;
    };
  },
  manhattan(x, own) {
    const { images, tiles } = train;
    return (row, limit) => {
      let low = 0, sum = 0;
      for (let t = 0, at = row * TILES; t < TILES; t++, at++) low += Math.abs(own[t] - tiles[at]);
      if (low >= limit) return Infinity;
      for (let i = 0, at = row * SIZE; i < SIZE; i++, at++) sum += Math.abs(x[i] - images[at]);
      return sum;
    };
  },
  cosine(x, own) {                                 // of images of length 1, half the squared distance
    const { images, tiles, norms } = train, [norm] = norms_of(x, 1), unit = 1 / Math.sqrt(norm);
    return (row, limit) => {
      const other = 1 / Math.sqrt(norms[row]);
      let low = 0, dot = 0;
      for (let t = 0, at = row * TILES; t < TILES; t++, at++) { const d = own[t] * unit - tiles[at] * other; low += d * d; }
      if (low > (limit + 1e-9) * 2 * TILE * TILE) return Infinity;
      for (let i = 0, at = row * SIZE; i < SIZE; i++, at++) dot += x[i] * images[at];
      return cosine_of(dot, norm, norms[row]);
    };
  },
};
function norms_of(points, n) {
  const size = points.length / n, out = new Float64Array(n);
  for (let row = 0; row < n; row++) for (let i = row * size; i < row * size + size; i++) out[row] += points[i] * points[i];
  return out;
}
const averages_norms = norms_of(averages, names.length);
function voted(labels, indices) {                  // shares of the votes; a tie goes to the nearest neighbour's class
  const votes = names.map(() => 0);
  for (const i of indices) votes[labels[i]] += 1;
  const most = Math.max(...votes), winner = labels[indices.find(i => votes[labels[i]] === most)];
  return { votes: votes.map(v => v / indices.length), winner };
}
function in_components(pixels) {
  const k = lvq.axes.length / SIZE, out = new Float64Array(k);
  for (let j = 0; j < k; j++) { let sum = 0; for (let i = 0; i < SIZE; i++) sum += (pixels[i] - lvq.mean[i]) * lvq.axes[j * SIZE + i]; out[j] = sum; }
  return out;
}
function answer(pixels, k, metric) {
  const found = { average: nearest(names.length, names.length, plain(averages, pixels, metric, averages_norms)),
    learned: nearest(lvq.labels.length, 5, plain(lvq.prototypes, in_components(pixels), "euclidean")) };
  if (train.n) {
    const own = nearest(train.n, Math.max(k, 5), measures[metric](pixels, tiles_of(pixels)));
    found.train = { ...own, ...voted(train.labels, own.indices.slice(0, k)) };
  }
  for (const kind in found) if (metric === "euclidean" || kind === "learned") found[kind].distances = found[kind].distances.map(Math.sqrt);
  return found;
}

// --- a drawing becomes an image like those of the data ------------------------------------------
function sampled(source, x, y) {                   // bilinear, nothing outside
  const x0 = Math.floor(x), y0 = Math.floor(y), dx = x - x0, dy = y - y0, at = (i, j) => i < 0 || j < 0 || i >= SIDE || j >= SIDE ? 0 : source[j * SIDE + i];
  return (at(x0, y0) * (1 - dx) + at(x0 + 1, y0) * dx) * (1 - dy) + (at(x0, y0 + 1) * (1 - dx) + at(x0 + 1, y0 + 1) * dx) * dy;
}
function moved(source, wide, high, across, down) { // stretched about the middle, then moved, in pixels
  const out = new Float64Array(SIZE), middle = (SIDE - 1) / 2;
  for (let y = 0; y < SIDE; y++) for (let x = 0; x < SIDE; x++)
    out[y * SIDE + x] = sampled(source, middle + (x - middle - across) / wide, middle + (y - middle - down) / high);
  return out;
}
function box_of(source) {
  let left = SIDE, right = -1, top = SIDE, bottom = -1;
  source.forEach((v, i) => { if (v >= 8) { const x = i % SIDE, y = Math.floor(i / SIDE); left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y); } });
  return right < 0 ? null : { left, right, top, bottom };
}
function fitted(source) {                          // as Zalando did: the longer side fills the frame, the rest is centred
  const box = box_of(source);
  if (!box) return source;
  const scale = SIDE / Math.max(box.right - box.left + 1, box.bottom - box.top + 1), middle = (SIDE - 1) / 2, x0 = (box.left + box.right) / 2, y0 = (box.top + box.bottom) / 2;
  const out = new Float64Array(SIZE);
  for (let y = 0; y < SIDE; y++) for (let x = 0; x < SIDE; x++) out[y * SIDE + x] = sampled(source, x0 + (x - middle) / scale, y0 + (y - middle) / scale);
  return out;
}
const as_bytes = source => Uint8Array.from(source, v => Math.max(0, Math.min(255, Math.round(v))));

// --- the page -----------------------------------------------------------------------------------
const state = { base: new Float64Array(SIZE), before: [], tool: "draw", size: 3, dark: 200, wide: 1, high: 1, across: 0, down: 0, fit: true, k: 5, metric: "euclidean", guess: -1, predict: false, told: false, milliseconds: 0 };
const pixels = () => { const now = moved(state.base, state.wide, state.high, state.across, state.down); return as_bytes(state.fit ? fitted(now) : now); };
function show(canvas, source, ink = true) {
  const g = canvas.getContext("2d"), image = g.createImageData(SIDE, SIDE);
  source.forEach((v, i) => { image.data.fill(ink ? 255 - v : v, 4 * i, 4 * i + 3); image.data[4 * i + 3] = 255; });
  g.putImageData(image, 0, 0);
}
const picture = (source, px, label) => { const c = el("canvas", { width: SIDE, height: SIDE, className: "tile", role: "img", "aria-label": label }); c.style.width = c.style.height = `${px}px`; show(c, source); return c; };
const paper = el("canvas", { width: SIDE, height: SIDE, className: "paper", tabIndex: 0, role: "application", "aria-label": "Drawing, 28 by 28 pixels. Draw with mouse or finger; or move the pen with the arrow keys and press Space." });
const seen = el("canvas", { width: SIDE, height: SIDE, className: "tile", role: "img", "aria-label": "The image as it is compared" });
const out = el("div", { className: "answer", "aria-live": "polite" }), progress = el("progress", { max: D.train.parts, value: 0, hidden: true, "aria-label": "Training images loaded" }), arriving = el("p", { className: "faint" });

const bars = votes => { const rows = votes.map((share, j) => [share, j]).filter(([share]) => share > 0).sort((a, b) => b[0] - a[0]);
  return el("table", { className: "votes" }, el("tbody", {}, ...rows.map(([share, j]) => { const bar = el("i"); bar.style.width = `${8 * share}rem`; return el("tr", {}, el("th", { scope: "row" }, names[j]), el("td", {}, bar), el("td", {}, share.toFixed(2))); }))); };
const near = (items) => el("div", { className: "near" }, ...items.map(([source, name, far]) => el("figure", {}, picture(source, 64, name), el("figcaption", {}, el("strong", {}, name), el("br"), String(+far.toPrecision(5))))));
function tell() {
  const now = pixels();
  show(paper, as_bytes(moved(state.base, state.wide, state.high, state.across, state.down)));
  show(seen, now);
  if (!now.some(v => v)) return out.replaceChildren(el("p", { className: "faint" }, "Draw something, or start from a garment."));
  if (state.predict && state.guess < 0) return out.replaceChildren(el("h2", {}, "What will it be called?"), el("div", { className: "row" }, ...names.map((name, j) => el("button", { onclick: () => { state.guess = j; tell(); } }, name))));
  const start = performance.now(), found = answer(now, state.k, state.metric);
  state.milliseconds = performance.now() - start;
  const { average, learned } = found, parts = [];
  if (found.train) {
    const { winner, votes, indices, distances } = found.train;
    const said = state.guess < 0 ? "" : state.guess === winner ? " You guessed it." : ` You guessed ${names[state.guess]}.`;
    parts.push(el("h2", {}, `${state.k === 1 ? "The nearest image says" : `${state.k} neighbours say`} ${names[winner]}.${said}`), bars(votes), el("h3", {}, "The five nearest training images"),
      near([...indices.slice(0, 5)].map((i, j) => [train.images.subarray(i * SIZE, i * SIZE + SIZE), names[train.labels[i]], distances[j]])));
  }
  parts.push(el("h3", {}, `The nearest average: ${names[average.indices[0]]}`), near([...average.indices.slice(0, 3)].map((i, j) => [averages.subarray(i * SIZE, i * SIZE + SIZE), names[i], average.distances[j]])),
    el("h3", {}, `The nearest learned prototypes: ${names[lvq.labels[learned.indices[0]]]}`), near([...learned.indices.slice(0, 3)].map((i, j) => [lvq_pictures.subarray(i * SIZE, i * SIZE + SIZE), names[lvq.labels[i]], learned.distances[j]])));
  parts.push(el("p", { className: "faint" }, `Compared with ${train.n.toLocaleString("en")} training images in ${state.milliseconds.toFixed(1)} ms.`));
  out.replaceChildren(...parts);
}
const lvq_pictures = (() => {                      // prototypes back in pixels
  const k = lvq.axes.length / SIZE, made = new Float64Array(lvq.labels.length * SIZE);
  for (let p = 0; p < lvq.labels.length; p++) for (let i = 0; i < SIZE; i++) { let v = lvq.mean[i]; for (let j = 0; j < k; j++) v += lvq.prototypes[p * k + j] * lvq.axes[j * SIZE + i]; made[p * SIZE + i] = Math.max(0, Math.min(255, v)); }
  return made;
})();
let asked = false;
const again = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; tell(); }); } load(); };
let loading = null;
function load() {                                  // all training images of the page, part by part, in order
  return loading ??= (async () => {
    progress.hidden = false;
    const images = new Uint8Array(train.labels.length * SIZE);
    let done = 0, at = 0;
    const arrived = await Promise.all(Array.from({ length: D.train.parts }, async (_, j) => { const own = await unpacked(await part(`train-${j}`)); progress.value = ++done; return own; }));
    for (const own of arrived) { images.set(own, at); at += own.length; }
    Object.assign(train, measured(images));
    progress.hidden = true;
    arriving.textContent = "";
    again();
  })().catch(error => { loading = null; arriving.textContent = `The training images could not be loaded: ${error.message}.`; progress.hidden = true; });
}
const tests = {};                                   // test images by the thousand, as they came
async function start_from(i) {                     // a test image
  const block = Math.floor(i / 1000), own = await (tests[block] ??= part(`test-${block}`).then(unpacked)), at = i % 1000 * SIZE;
  keep();
  Object.assign(state, { base: Float64Array.from(own.subarray(at, at + SIZE)), fit: false, guess: -1 });
  refresh();
  return own.slice(at, at + SIZE);
}
const keep = () => { state.before.push(state.base.slice()); if (state.before.length > 50) state.before.shift(); };
function stroke(x0, y0, x1, y1) {                  // a soft round pen along a line, in pixels
  const steps = Math.max(1, Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0))), r = state.size / 2;
  for (let s = 0; s <= steps; s++) {
    const cx = x0 + (x1 - x0) * s / steps, cy = y0 + (y1 - y0) * s / steps;
    for (let y = Math.max(0, Math.floor(cy - r - 1)); y <= Math.min(SIDE - 1, Math.ceil(cy + r + 1)); y++) for (let x = Math.max(0, Math.floor(cx - r - 1)); x <= Math.min(SIDE - 1, Math.ceil(cx + r + 1)); x++) {
      const cover = Math.max(0, Math.min(1, r + .5 - Math.hypot(x - cx, y - cy))), i = y * SIDE + x;
      state.base[i] = state.tool === "draw" ? Math.max(state.base[i], cover * state.dark) : state.base[i] * (1 - cover);
    }
  }
}
const middle = (SIDE - 1) / 2;
const where = e => { const b = paper.getBoundingClientRect(), x = (e.clientX - b.left) / b.width * SIDE - .5, y = (e.clientY - b.top) / b.height * SIDE - .5;
  return [middle + (x - middle - state.across) / state.wide, middle + (y - middle - state.down) / state.high]; };   // where it was before the stretch
let pen = null;
paper.addEventListener("pointerdown", e => { paper.setPointerCapture(e.pointerId); keep(); pen = where(e); state.guess = -1; stroke(...pen, ...pen); again(); });
paper.addEventListener("pointermove", e => { if (!pen) return; for (const one of e.getCoalescedEvents?.() ?? [e]) { const to = where(one); stroke(...pen, ...to); pen = to; } again(); });
for (const end of ["pointerup", "pointercancel"]) paper.addEventListener(end, () => { pen = null; });
const keys = { x: 14, y: 14 };
paper.addEventListener("keydown", e => {
  const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[e.key];
  if (way) { keys.x = Math.max(0, Math.min(27, keys.x + way[0])); keys.y = Math.max(0, Math.min(27, keys.y + way[1])); mark.style.left = `${(keys.x + .5) / .28}%`; mark.style.top = `${(keys.y + .5) / .28}%`; mark.hidden = false; }
  else if (e.key === " ") { keep(); state.guess = -1; stroke(keys.x, keys.y, keys.x, keys.y); again(); }
  else return;
  e.preventDefault();
});
const mark = el("i", { className: "mark", hidden: true, "aria-hidden": "true" });
paper.addEventListener("blur", () => { mark.hidden = true; });
const fields = {};
function slider(key, text, least, most, step, unit = v => v) {
  const shown = el("output", {}, unit(state[key])), input = el("input", { type: "range", min: least, max: most, step, value: state[key], oninput: () => { state[key] = +input.value; shown.textContent = unit(state[key]); again(); } });
  fields[key] = () => { input.value = state[key]; shown.textContent = unit(state[key]); };
  return el("label", { className: "slider" }, el("span", {}, text, " ", shown), input);
}
function check(key, text) {
  const input = el("input", { type: "checkbox", checked: state[key], onchange: () => { state[key] = input.checked; state.guess = -1; again(); } });
  fields[key] = () => { input.checked = state[key]; };
  return el("label", {}, input, " ", text);
}
const tool = (value, text) => el("button", { value, onclick: () => { state.tool = value; refresh(); } }, text);
const tools = [tool("draw", "Draw"), tool("erase", "Erase")];
const times = v => `${Math.round(100 * v)} %`, blank = { base: new Float64Array(SIZE), wide: 1, high: 1, across: 0, down: 0, fit: true, guess: -1 };
const which = el("select", { onchange: () => { if (which.value) start_from(+which.value); } }, el("option", { value: "" }, "a test image ..."), ...D.starts.map(([i, name]) => el("option", { value: i }, `${name} (${i})`)));
const number = el("input", { type: "number", min: 0, max: D.n_test - 1, placeholder: "0-9999", "aria-label": "Number of a test image", onchange: () => { if (number.value !== "" && number.validity.valid) start_from(Math.floor(+number.value)); } });
const metric = el("select", { onchange: () => { state.metric = metric.value; again(); } }, ...["euclidean", "manhattan", "cosine"].map(name => el("option", {}, name)));
function refresh() { tools.forEach(b => b.setAttribute("aria-pressed", b.value === state.tool)); Object.values(fields).forEach(set => set()); again(); }
document.querySelector("main").replaceChildren(el("h1", {}, D.title), el("p", {}, D.text), el("div", { className: "sides sandbox" },
  el("div", {}, el("div", { className: "desk" }, el("div", { className: "sheet" }, paper, mark), el("div", {}, el("p", { className: "faint" }, "As it is compared:"), seen)),
    el("div", { className: "row" }, ...tools, el("button", { onclick: () => { if (state.before.length) { state.base = state.before.pop(); state.guess = -1; again(); } } }, "Undo"), el("button", { onclick: () => { keep(); Object.assign(state, blank, { base: new Float64Array(SIZE) }); refresh(); } }, "Clear")),
    el("div", { className: "row" }, el("label", {}, "Start from ", which), el("label", {}, "or number ", number), el("button", { onclick: () => start_from(Math.floor(Math.random() * D.n_test)) }, "Any")),
    el("div", { className: "sliders" }, slider("size", "Pen", 1, 8, .5), slider("dark", "Darkness", 20, 255, 1), slider("wide", "Width", .4, 1.6, .02, times), slider("high", "Height", .4, 1.6, .02, times), slider("across", "Across", -10, 10, .5), slider("down", "Down", -10, 10, .5), slider("k", "Neighbours that vote:", 1, 50, 1), el("label", { className: "slider" }, el("span", {}, "Metric"), metric)),
    el("div", { className: "row" }, check("fit", "Fit to the frame, as the data are"), check("predict", "Let me guess first"))),
  el("div", {}, progress, arriving, out)), el("p", { className: "faint" }, D.credit));
tools[0].setAttribute("aria-pressed", true);
tell();
globalThis.sandbox = { state, answer, measured, pixels, load, start_from, tell, refresh, stroke, keep, train, paper };
