// The page that `explore` makes: a confusion matrix to click, and a map to move over.
// What it shows was computed in Python; here it is only drawn. EXPLORE holds the numbers, parts the pictures.
const D = EXPLORE, ROLL = 500, SMALL = 20;
const per = (a, b) => (100 * a / b).toFixed(1) + " %", plural = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// --- pictures: rolls of 500 in one WebP each, in this page or in a script beside it -------------
const sheets = {};
function sheet(roll, number) {
  const name = `${roll}-${number}`;
  return sheets[name] ??= part(name).then(async text => {
    const image = new Image();
    image.src = URL.createObjectURL(new Blob([bytes(text)], { type: "image/webp" }));
    await image.decode();
    return image;
  });
}
const columns = 25, [side_y, side_x] = D.side;
async function paint(tile, roll, place, px) {       // shows a picture of a roll as the ground of an element
  const scale = px / Math.max(side_y, side_x), at = place % ROLL;
  Object.assign(tile.style, { width: `${side_x * scale + 2}px`, height: `${side_y * scale + 2}px` });
  const image = await sheet(roll, Math.floor(place / ROLL));
  Object.assign(tile.style, { backgroundImage: `url(${image.src})`, backgroundSize: `${columns * side_x * scale}px auto`,
    backgroundPosition: `${-(at % columns) * side_x * scale}px ${-Math.floor(at / columns) * side_y * scale}px` });
}

// --- the numbers --------------------------------------------------------------------------------
const labels = numbers(D.labels, Uint16Array), places = numbers(D.places, Uint16Array), n = labels.length, names = D.names, c = names.length;
const models = D.models.map(m => ({ ...m, predicted: numbers(m.predicted, Uint16Array), slug: m.name.toLowerCase() }));
const facts = {};                                   // what is loaded when it is wanted
const fact = name => facts[name] ??= part(name).then(JSON.parse);
const gallery = () => facts.all ??= fact("gallery").then(g => ({ picture: numbers(g.picture, Int32Array), label: numbers(g.label, Uint16Array), row: numbers(g.row, Int32Array) }));
async function reasons(j) {                         // the neighbours and the votes of a model
  const name = `model-${j}`;
  return facts[`reasons ${j}`] ??= Promise.all([models[j].said ? fact(name) : {}, gallery()]).then(([own, g]) => ({ gallery: g,
    near: own.near && { k: own.near.k, place: numbers(own.near.place, own.near.wide ? Int32Array : Uint16Array), distance: numbers(own.near.distance, Float32Array) },
    votes: own.votes && { k: own.votes.k, label: numbers(own.votes.label, Uint16Array), share: numbers(own.votes.share, Float32Array) } }));
}
for (const m of models) {
  m.right = 0; m.counts = new Map();
  for (let i = 0; i < n; i++) {
    const key = labels[i] * c + m.predicted[i];
    m.counts.set(key, (m.counts.get(key) ?? 0) + 1);
    m.right += labels[i] === m.predicted[i];
  }
  m.most = Math.max(1, ...[...m.counts].filter(([key]) => Math.floor(key / c) !== key % c).map(([, count]) => count));
}
const state = { model: 0, truth: -1, called: -1, image: -1 };
const count = (m, a, b) => m.counts.get(a * c + b) ?? 0;
const members = (m, a, b) => { const found = []; for (let i = 0; i < n; i++) if (labels[i] === a && m.predicted[i] === b) found.push(i); return found; };

// --- the mistakes -------------------------------------------------------------------------------
const main = document.querySelector("main");
const methods = el("div", { className: "row methods", role: "group", "aria-label": "Method" }), table = el("div");
const heading = el("h2"), grid = el("div", { className: "scroll", role: "group", hidden: true }), detail = el("div", { "aria-live": "polite" });
const mistakes = el("section", { id: "mistakes" }, methods, el("div", { className: "sides" },
  el("div", {}, table), el("div", {}, heading, grid, detail)));

const shade = (m, a, b) => { const x = count(m, a, b);
  return a === b ? `rgba(var(--hit), ${(.1 + .25 * x / (D.sizes[a] || 1)).toFixed(2)})` : x ? `rgba(var(--shade), ${(.08 + .44 * Math.sqrt(x / m.most)).toFixed(2)})` : "transparent"; };
function miniature(m) {                             // a matrix as a picture of one pixel a cell
  const canvas = el("canvas", { width: c, height: c, "aria-hidden": "true" }), g = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(name);
  for (const [key, x] of m.counts) {
    const a = Math.floor(key / c), b = key % c;
    g.fillStyle = a === b ? `rgba(${colour("--hit")}, ${.15 + .6 * x / (D.sizes[a] || 1)})` : `rgba(${colour("--shade")}, ${.1 + .8 * Math.sqrt(x / m.most)})`;
    g.fillRect(b, a, 1, 1);
  }
  return canvas;
}
function draw_methods() {
  methods.replaceChildren(...models.map((m, j) => el("button", { "aria-pressed": j === state.model, onclick: () => go({ model: j, ...(count(m, state.truth, state.called) ? {} : { truth: -1, called: -1, image: -1 }) }) },
    ...(c <= 60 ? [miniature(m)] : []), el("span", {}, m.name, el("small", {}, `${per(m.right, n)} right`)))));
}
function draw_table() {
  const m = models[state.model], choose = (a, b) => () => go({ truth: a, called: b, image: -1 });
  const said = (a, b) => `${plural(count(m, a, b), "image")} of ${names[a]} called ${names[b]}`;
  if (c > SMALL) {                                  // too wide for a table: the mistakes by number
    const worst = [...m.counts].filter(([key]) => Math.floor(key / c) !== key % c).sort((x, y) => y[1] - x[1]).slice(0, 200);
    const buttons = worst.map(([key, x]) => { const a = Math.floor(key / c), b = key % c;
      return el("button", { onclick: choose(a, b), "aria-pressed": a === state.truth && b === state.called }, el("span", {}, `${names[a]}, called ${names[b]}`), el("span", {}, x)); });
    return table.replaceChildren(el("h2", {}, buttons.length ? "The most frequent mistakes" : "No mistake"), el("div", { className: "pairs", tabIndex: 0, role: "group", "aria-label": "Mistakes" }, ...buttons));
  }
  const cells = [];
  const rows = names.map((name, a) => el("tr", {}, el("th", { scope: "row" }, name), ...names.map((_, b) => {
    const button = el("button", { onclick: choose(a, b), "aria-pressed": a === state.truth && b === state.called, "aria-label": said(a, b), title: said(a, b), disabled: false }, count(m, a, b) || "");
    button.style.background = shade(m, a, b);
    cells.push(button);
    return el("td", {}, button);
  })));
  const body = el("table", { className: "matrix" }, el("caption", { className: "faint" }, "Rows: the true label. Columns: what it was called."),
    el("colgroup", {}, el("col", { className: "names" }), ...names.map(() => el("col"))),
    el("thead", {}, el("tr", {}, el("td"), ...names.map(name => el("th", { scope: "col" }, el("span", {}, name))))), el("tbody", {}, ...rows));
  rove(body, cells, c, Math.max(0, state.truth * c + state.called));
  const focused = document.activeElement?.closest?.(".matrix") && state.truth >= 0;
  table.replaceChildren(body);
  if (focused) cells[state.truth * c + state.called].focus();
}
function rove(box, items, wide, first) {            // arrow keys move inside; Tab enters once
  items.forEach((item, i) => { item.tabIndex = i === first ? 0 : -1; });
  box.addEventListener("keydown", e => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[e.key], at = items.indexOf(document.activeElement);
    if (!step || at < 0 || !items[at + step]) return;
    e.preventDefault();
    items[at].tabIndex = -1; items[at + step].tabIndex = 0; items[at + step].focus();
  });
}
let shown = [], tiles = new Map(), cursor = 0;
const PX = 56, STEP = PX + 8;
function draw_grid(refocus) {                       // only the rows in sight have elements
  const wide = Math.max(1, Math.floor((grid.clientWidth - 8) / STEP)), from = Math.floor(grid.scrollTop / STEP) - 1, to = from + Math.ceil(grid.clientHeight / STEP) + 2;
  const wanted = new Set();
  for (let at = Math.max(0, from * wide); at < Math.min(shown.length, to * wide); at++) wanted.add(at);
  wanted.add(cursor);
  for (const [at, tile] of tiles) if (!wanted.has(at)) { tile.remove(); tiles.delete(at); }
  for (const at of [...wanted].sort((a, b) => a - b)) {
    const i = shown[at];
    let tile = tiles.get(at);
    if (!tile) {
      tile = el("button", { className: "tile", onclick: () => { cursor = at; go({ image: i }); } });
      tile.setAttribute("aria-label", `image ${i}`);
      paint(tile, "images", places[i], PX);
      tiles.set(at, tile);
      grid.append(tile);
    }
    tile.setAttribute("aria-pressed", i === state.image);
    tile.tabIndex = at === cursor ? 0 : -1;
    Object.assign(tile.style, { left: `${4 + at % wide * STEP}px`, top: `${4 + Math.floor(at / wide) * STEP}px` });
    if (refocus && at === cursor) tile.focus({ preventScroll: true });
  }
  grid.style.setProperty("--rows", Math.ceil(shown.length / wide));
  filler.style.height = `${Math.ceil(shown.length / wide) * STEP + 8}px`;
  return wide;
}
const filler = el("div", { "aria-hidden": "true" });
grid.append(filler);
grid.addEventListener("scroll", () => draw_grid());
grid.addEventListener("keydown", e => {
  const wide = draw_grid(), step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[e.key];
  if (!step) return;
  e.preventDefault();
  cursor = Math.min(shown.length - 1, Math.max(0, cursor + step));
  const top = Math.floor(cursor / wide) * STEP;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + STEP > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + STEP + 8 - grid.clientHeight;
  draw_grid(true);
});
function draw_cell(fresh) {
  const m = models[state.model], { truth, called } = state;
  grid.hidden = truth < 0;
  if (truth < 0) { heading.textContent = m.right === n ? "No mistake: every image is called by its label" : "Click a cell to see its images"; return; }
  heading.textContent = truth === called ? `${names[truth]}, rightly called: ${count(m, truth, called)}` : `${names[truth]}, called ${names[called]}: ${count(m, truth, called)}`;
  grid.setAttribute("aria-label", `Images of ${heading.textContent}; arrow keys move`);
  if (fresh) {
    shown = members(m, truth, called); cursor = Math.max(0, shown.indexOf(state.image));
    tiles.forEach(tile => tile.remove()); tiles = new Map();
    const wide = Math.max(1, Math.floor((grid.clientWidth - 8) / STEP));
    draw_grid();
    grid.style.height = `min(19rem, ${Math.ceil(shown.length / wide) * STEP + 12}px)`;
    grid.scrollTop = Math.max(0, (Math.floor(cursor / wide) - 1) * STEP);
  }
  draw_grid();
}
function tile_of(roll, place, px, label) { const tile = el("div", { className: "tile", role: "img", "aria-label": label }); paint(tile, roll, place, px); return tile; }
function neighbours(m, { near, gallery }, i) {
  const found = [];
  for (let at = i * near.k; at < i * near.k + near.k; at++) {
    const place = near.place[at], row = gallery.row[place], picture = gallery.picture[place], label = gallery.label[place], known = label < c;
    const what = known ? names[label] : "", kind = !known ? "" : label === labels[i] ? "same" : "other";
    const lines = [...(known ? [el("span", { className: kind }, what), el("br")] : []), String(+near.distance[at].toPrecision(5)), el("br"), el("span", { className: "faint" }, `${m.near.word} ${row}`)];
    found.push(el("figure", {}, ...(picture < 0 ? [] : [tile_of("near", picture, 72, `${m.near.word} ${row} ${what}`)]), el("figcaption", {}, ...lines)));
  }
  return found;
}
function votes({ votes: { k, label, share } }, i) {
  const rows = [];
  for (let at = i * k; at < i * k + k; at++) {
    if (!(share[at] > 0)) continue;
    const bar = el("i");
    bar.style.width = `${(8 * share[at]).toFixed(2)}rem`;
    rows.push(el("tr", {}, el("th", { scope: "row", className: label[at] === labels[i] ? "same" : "" }, names[label[at]]), el("td", {}, bar), el("td", {}, share[at].toFixed(2))));
  }
  return el("table", { className: "votes" }, el("tbody", {}, ...rows));
}
async function draw_detail() {
  const j = state.model, m = models[j], i = state.image;
  if (i < 0) return detail.replaceChildren(...(state.truth < 0 ? [] : [el("p", { className: "faint" }, "Click an image to see what decided.")]));
  const known = await reasons(j);
  if (j !== state.model || i !== state.image) return;                    // the reader has gone on
  const right = m.predicted[i] === labels[i];
  const said = el("div", {}, el("h3", {}, `Image ${i}: ${names[labels[i]]}`), el("p", {}, `${m.name} calls it `, el("span", { className: right ? "same" : "other" }, names[m.predicted[i]]), "."));
  if (known.votes) said.append(votes(known, i));
  const parts = [el("div", { className: "detail" }, tile_of("images", places[i], 112, `image ${i}, ${names[labels[i]]}`), said)];
  if (known.near) parts.push(el("h3", {}, m.near.title), el("div", { className: "near" }, ...neighbours(m, known, i)));
  if (models.length > 1) parts.push(el("h3", {}, "What the others say"), el("div", { className: "row" }, ...models.flatMap((o, other) => o === m ? [] :
    [el("button", { onclick: () => go({ model: other, truth: labels[i], called: o.predicted[i], image: i }) }, `${o.name}: `, el("span", { className: o.predicted[i] === labels[i] ? "same" : "other" }, names[o.predicted[i]]))])));
  if (map) parts.push(el("p", {}, el("button", { onclick: () => { go({ view: "map" }); map.choose(i, true); } }, "Where is it on the map?")));
  detail.replaceChildren(...parts);
}

// --- the map ------------------------------------------------------------------------------------
const LIGHT = "#332288 #117733 #c4453c #2f8fbf #8a7a00 #aa3377 #44aa99 #7a4419 #8c8c8c #dd9a00".split(" ");
const DARK = "#9d8cff #5ec27c #ff8377 #7fd0ff #d8cc4a #f58ac8 #6fe0cc #d69a63 #b9b9b9 #ffc44d".split(" ");
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour_of = k => c <= 10 ? (dark.matches ? DARK : LIGHT)[k] : `hsl(${(k * 137.508) % 360} 55% ${(dark.matches ? 58 : 34) + k % 3 * 8}%)`;
const CIVIDIS = ["#00204d", "#31446b", "#666970", "#958f78", "#cbba69", "#ffea46"];      // 0 of its neighbours near ... all
const map = D.layouts.length ? make_map() : null;
function make_map() {
  const canvas = el("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "map", "aria-label": `Map of ${plural(n, "image")}. Arrow keys choose the next image that way, plus and minus zoom, Enter shows it among the mistakes.` });
  const g = canvas.getContext("2d"), box = el("div", { className: "map" }, canvas), said = el("p", { "aria-live": "polite" });
  const nowhere = { xy: new Float32Array(2 * n), kept: new Uint8Array(n) };
  const layouts = D.layouts.map(l => ({ ...l, ...nowhere }));
  let links = new Uint16Array(0), k = 0, ready = null;
  const load = () => ready ??= fact("map").then(told => {
    links = numbers(told.links, Uint16Array); k = links.length / n;
    told.layouts.forEach((l, j) => Object.assign(layouts[j], { xy: Float32Array.from(numbers(l.xy, Uint16Array), v => v / 65535), kept: numbers(l.kept, Uint8Array) }));
    draw_legend(); describe(); choose(-1);
  });
  const on = names.map(() => true);
  let layout = layouts[layouts.length - 1], by = "label", hit = -1, pinned = false, W = 1, H = 1, S = 1, asked = false;
  let view = { x: .5, y: .5, zoom: .95 };           // what is in the middle, and how large the unit square is against the canvas
  const scale = () => view.zoom * Math.min(W, H), X = i => (layout.xy[2 * i] - view.x) * scale() + W / 2, Y = i => (view.y - layout.xy[2 * i + 1]) * scale() + H / 2;
  const loaded = {};
  function picture_of(i) {                          // the sheet of an image if it has arrived, else it is sent for
    const number = Math.floor(places[i] / ROLL);
    if (!(number in loaded)) { loaded[number] = null; sheet("images", number).then(image => { loaded[number] = image; again(); }); }
    return loaded[number];
  }
  const tint = i => by === "label" ? colour_of(labels[i]) : CIVIDIS[Math.round(layout.kept[i] / k * 5)];
  function draw() {
    asked = false;
    g.setTransform(S, 0, 0, S, 0, 0);
    g.clearRect(0, 0, W, H);
    const seen = [];
    for (let i = 0; i < n; i++) {
      if (!on[labels[i]]) continue;
      const x = X(i), y = Y(i);
      if (x > -30 && y > -30 && x < W + 30 && y < H + 30) seen.push(i);
    }
    map_state.thumbnails = seen.length <= 700;
    if (map_state.thumbnails) {
      const px = Math.max(18, Math.min(56, Math.sqrt(W * H / Math.max(20, seen.length)) * .7));
      g.imageSmoothingEnabled = false;
      for (const i of seen) {
        const image = picture_of(i), at = places[i] % ROLL, x = X(i) - px / 2, y = Y(i) - px / 2;
        g.fillStyle = tint(i); g.fillRect(x - 2, y - 2, px + 4, px + 4);
        if (image) g.drawImage(image, at % columns * side_x, Math.floor(at / columns) * side_y, side_x, side_y, x, y, px, px);
      }
    } else {
      const r = Math.max(n < 3000 ? 3 : 2, Math.min(6, 1.5 + view.zoom * .7)), kinds = new Map();
      for (const i of seen) { const t = tint(i); kinds.has(t) ? kinds.get(t).push(i) : kinds.set(t, [i]); }
      g.globalAlpha = .8;
      for (const [t, own] of kinds) { g.fillStyle = t; for (const i of own) g.fillRect(X(i) - r / 2, Y(i) - r / 2, r, r); }
      g.globalAlpha = 1;
    }
    if (hit >= 0) draw_hit();
  }
  function draw_hit() {
    g.strokeStyle = getComputedStyle(canvas).color; g.lineWidth = 1.5;
    for (let j = hit * k; j < hit * k + k; j++) { g.beginPath(); g.moveTo(X(hit), Y(hit)); g.lineTo(X(links[j]), Y(links[j])); g.stroke(); }
    g.imageSmoothingEnabled = false;
    for (const i of [...links.slice(hit * k, hit * k + k), hit]) {
      const px = i === hit ? 64 : 40, image = picture_of(i), at = places[i] % ROLL, x = X(i) - px / 2, y = Y(i) - px / 2;
      g.fillStyle = colour_of(labels[i]); g.fillRect(x - 3, y - 3, px + 6, px + 6);
      if (image) g.drawImage(image, at % columns * side_x, Math.floor(at / columns) * side_y, side_x, side_y, x, y, px, px);
    }
  }
  function again() { if (!asked) { asked = true; requestAnimationFrame(draw); } }
  function choose(i, centre) {
    if (!k) return load().then(() => choose(i, centre));
    hit = i; pinned = Boolean(centre);
    if (i >= 0) {
      on[labels[i]] = true;
      if (centre && (X(i) < 0 || Y(i) < 0 || X(i) > W || Y(i) > H || view.zoom < 2)) view = { x: layout.xy[2 * i], y: layout.xy[2 * i + 1], zoom: Math.max(view.zoom, 3) };
      const own = [...links.slice(i * k, i * k + k)].filter(j => labels[j] === labels[i]).length;
      said.textContent = `Image ${i}, ${names[labels[i]]}: of its ${k} nearest in the original space ${own} bear its label, and ${layout.kept[i]} are among the ${k} nearest on this map.`;
      if (centre) link();
    } else said.textContent = "Point at an image, or tap it: lines lead to its true neighbours, wherever the map has put them.";
    again();
  }
  function nearest(x, y, within) {
    let best = within * within, found = -1;
    for (let i = 0; i < n; i++) { if (!on[labels[i]]) continue; const d = (X(i) - x) ** 2 + (Y(i) - y) ** 2; if (d < best) { best = d; found = i; } }
    return found;
  }
  function zoom(factor, x = W / 2, y = H / 2) {
    const to = Math.min(60, Math.max(.5, view.zoom * factor)), s = scale();
    const px = view.x + (x - W / 2) / s, py = view.y - (y - H / 2) / s;
    view.zoom = to;
    view.x = px - (x - W / 2) / scale(); view.y = py + (y - H / 2) / scale();
    again();
  }
  const held = new Map();
  let moved = 0;
  const where = e => { const b = canvas.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
  canvas.addEventListener("pointerdown", e => { canvas.setPointerCapture(e.pointerId); held.set(e.pointerId, where(e)); moved = 0; });
  canvas.addEventListener("pointermove", e => {
    const [x, y] = where(e), before = held.get(e.pointerId);
    if (!before) { if (!pinned && e.pointerType !== "touch") { const i = nearest(x, y, 24); if (i !== hit) choose(i); } return; }
    const others = [...held].filter(([id]) => id !== e.pointerId).map(([, at]) => at);
    if (others.length) { const [ox, oy] = others[0], a = Math.hypot(before[0] - ox, before[1] - oy), b = Math.hypot(x - ox, y - oy); if (a > 0) zoom(b / a, (x + ox) / 2, (y + oy) / 2); }
    view.x -= (x - before[0]) / scale() / held.size; view.y += (y - before[1]) / scale() / held.size;
    moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    held.set(e.pointerId, [x, y]);
    again();
  });
  const release = e => { if (held.delete(e.pointerId) && moved < 6 && e.type === "pointerup") { const i = nearest(...where(e), 32); choose(i); pinned = i >= 0; if (pinned) link(); } };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { if (!pinned) choose(-1); });
  canvas.addEventListener("wheel", e => { e.preventDefault(); zoom(Math.exp(-e.deltaY / 300), ...where(e)); }, { passive: false });
  canvas.addEventListener("keydown", e => {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[e.key];
    if (e.key === "+" || e.key === "=") zoom(1.4); else if (e.key === "-") zoom(1 / 1.4);
    else if (e.key === "Escape") choose(-1);
    else if (e.key === "Enter" && hit >= 0) open(hit);
    else if (way) {
      if (hit < 0) choose(nearest(W / 2, H / 2, Infinity), true);
      else {
        let best = Infinity, found = hit;
        for (let i = 0; i < n; i++) {
          if (!on[labels[i]] || i === hit) continue;
          const dx = X(i) - X(hit), dy = Y(i) - Y(hit), ahead = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
          if (ahead > 0 && aside <= ahead && ahead + aside < best) { best = ahead + aside; found = i; }
        }
        choose(found, true);
      }
    } else return;
    e.preventDefault();
  });
  const open = i => { go({ view: "mistakes", truth: labels[i], called: models[state.model].predicted[i], image: i }); };
  const pick = (text, options, chosen, act) => { const s = el("select", { onchange: () => act(s.value) }, ...options.map(([value, name]) => el("option", { value, selected: value === chosen }, name))); return el("label", {}, text, " ", s); };
  const legend = el("div", { className: "legend" });
  function draw_legend() {
    if (by === "kept") return legend.replaceChildren(...CIVIDIS.map((t, j) => { const dot = el("i"); dot.style.background = t; return el("span", {}, dot, j === 0 ? `none of the ${k} kept` : j === 5 ? "all kept" : ""); }));
    legend.replaceChildren(...(c > 40 ? [] : names.map((name, j) => { const dot = el("i"); dot.style.background = colour_of(j);
      return el("button", { "aria-pressed": on[j], onclick: e => { on[j] = !on[j]; e.currentTarget.setAttribute("aria-pressed", on[j]); again(); } }, dot, name); })));
  }
  const note = el("p", { className: "faint" });
  const describe = () => { const all = layout.kept.reduce((a, b) => a + b, 0); note.textContent = `${layout.note} On average ${(all / n).toFixed(1)} of ${k} true neighbours are among the ${k} nearest on the map.`; };
  const section = el("section", { id: "map" },
    el("div", { className: "row" }, pick("Layout", layouts.map((l, j) => [String(j), l.name]), String(layouts.length - 1), v => { layout = layouts[v]; describe(); choose(hit); again(); }),
      pick("Colour", [["label", "by label"], ["kept", "by how wrong the map is"]], "label", v => { by = v; draw_legend(); again(); }),
      el("button", { onclick: () => zoom(1.5), "aria-label": "Zoom in" }, "+"), el("button", { onclick: () => zoom(1 / 1.5), "aria-label": "Zoom out" }, "−"),
      el("button", { onclick: () => { view = { x: .5, y: .5, zoom: .95 }; choose(-1); pinned = false; } }, "Whole map"),
      el("button", { onclick: () => hit >= 0 && open(hit) }, "Show its votes")),
    box, said, legend, note);
  const map_state = { section, load, choose, zoom, draw, again, get hit() { return hit; }, get layout() { return layout; }, get links() { return links; }, get k() { return k; }, at: i => [X(i), Y(i)], thumbnails: false,
    pan: (dx, dy) => { view.x -= dx / scale(); view.y += dy / scale(); again(); } };
  new ResizeObserver(() => { W = canvas.clientWidth; H = canvas.clientHeight; S = devicePixelRatio || 1; if (W) { canvas.width = W * S; canvas.height = H * S; draw(); } }).observe(canvas);
  dark.addEventListener("change", () => { draw_legend(); again(); });
  return map_state;
}

// --- where we are: #method/label/called/image, or #map/image ------------------------------------
let view = "mistakes";
const tabs = el("div", { className: "row", role: "group", "aria-label": "View" });
function link() {
  if (location.protocol === "about:") return;       // shown inside a notebook
  const m = models[state.model], path = view === "map" ? ["map", ...(map.hit >= 0 ? [map.hit] : [])]
    : [m.slug, ...(state.truth < 0 ? [] : [names[state.truth], names[state.called], ...(state.image < 0 ? [] : [state.image])])];
  history.replaceState(null, "", "#" + path.map(encodeURIComponent).join("/"));
}
function go(change = {}) {
  const before = { ...state };
  view = change.view ?? view;
  delete change.view;
  Object.assign(state, change);
  mistakes.hidden = view !== "mistakes";
  if (map) { map.section.hidden = view !== "map"; if (view === "map") map.load(); }
  for (const tab of tabs.children) tab.setAttribute("aria-pressed", tab.value === view);
  const fresh = ["model", "truth", "called"].some(key => state[key] !== before[key]) || !shown.length;
  if (fresh || !table.firstChild) { draw_methods(); draw_table(); }
  draw_cell(fresh); draw_detail(); link();
}
function follow() {
  const path = location.protocol === "about:" ? [] : location.hash.slice(1).split("/").filter(Boolean).map(decodeURIComponent);
  if (path[0] === "map" && map) { go({ view: "map" }); if (path[1] in labels) map.choose(+path[1], true); return; }
  const model = models.findIndex(m => m.slug === path[0]?.toLowerCase()), a = names.indexOf(path[1]), b = names.indexOf(path[2]);
  const there = a >= 0 && b >= 0, image = there && path[3] in labels && labels[path[3]] === a && models[Math.max(0, model)].predicted[path[3]] === b ? +path[3] : -1;
  go({ view: "mistakes", model: Math.max(0, model), truth: there ? a : -1, called: there ? b : -1, image });
}
if (map) tabs.append(...[["mistakes", "Mistakes"], ["map", "Map"]].map(([value, name]) => el("button", { value, onclick: () => go({ view: value }) }, name)));
main.replaceChildren(el("h1", {}, D.title), tabs, mistakes, ...(map ? [map.section] : []), el("p", { className: "faint" }, D.credit));
addEventListener("hashchange", follow);
addEventListener("resize", () => { if (!grid.hidden) draw_grid(); });
dark.addEventListener("change", draw_methods);
follow();
globalThis.explorer = { state, models, map, names, labels, places, go, reasons, sheet };
