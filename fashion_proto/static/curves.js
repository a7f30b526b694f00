// Curves to point at: the nearest point says what it is.
const D = EXPLORE, W = Math.max(330, Math.min(640, innerWidth - 24)), H = Math.round(180 + W * .36), LEFT = 72, BOTTOM = 44, NS = "http://www.w3.org/2000/svg";
const make = (name, attributes, text = "") => { const made = document.createElementNS(NS, name); for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v); made.textContent = text; return made; };
const spot = ([x, y]) => [LEFT + (x - D.x[0]) / (D.x[1] - D.x[0]) * (W - LEFT - 12), (H - BOTTOM) - Math.log(y / D.y[0]) / Math.log(D.y[1] / D.y[0]) * (H - BOTTOM - 10)];
const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": D.title, style: "width: 100%; max-width: 44rem; touch-action: pan-y" });
const text = (x, y, words, more = {}) => svg.append(make("text", { x, y, "font-size": 14, fill: "currentColor", ...more }, words));
for (let y = D.y[0]; y <= D.y[1]; y *= 10) { const at = spot([D.x[0], y])[1]; svg.append(make("line", { x1: LEFT, x2: W - 12, y1: at, y2: at, stroke: "currentColor", "stroke-opacity": .15 })); text(LEFT - 4, at + (y === D.y[1] ? 12 : 5), y >= 1000 ? `${y / 1000} 000` : y, { "text-anchor": "end" }); }
for (const x of D.ticks) text(spot([x, D.y[0]])[0], H - BOTTOM + 18, x, { "text-anchor": "middle" });
text((W + LEFT) / 2, H - 6, D.labels[0], { "text-anchor": "middle" });
text(12, (H - BOTTOM) / 2, D.labels[1], { "text-anchor": "middle", transform: `rotate(-90 12 ${(H - BOTTOM) / 2})` });
const said = document.createElement("p"), pick = document.createElement("select"), points = [];
said.setAttribute("aria-live", "polite");
pick.setAttribute("aria-label", "Curve to bring forward");
pick.style.maxWidth = "100%";
pick.append(new Option("point at a curve, or choose one here", ""), ...D.curves.map(c => new Option(c.name, c.name)));
const lines = D.curves.map(c => {
  const inside = c.points.filter(([x, y]) => x >= D.x[0] && y >= D.y[0] && y <= D.y[1]), line = make("polyline", { points: inside.map(p => spot(p).join()).join(" "), fill: "none" });
  for (const p of inside) points.push({ curve: c, at: spot(p), p });
  svg.append(line);
  return line;
});
const dot = make("circle", { r: 6, fill: "var(--accent)", visibility: "hidden" });
svg.append(dot);
function show(name, point) {
  D.curves.forEach((c, j) => { const on = c.name === name; lines[j].setAttribute("stroke", on ? "var(--accent)" : c.ours ? "var(--wrong)" : "currentColor"); lines[j].setAttribute("stroke-width", on ? 4 : c.ours ? 3 : 1.2); lines[j].setAttribute("stroke-opacity", on || c.ours ? 1 : .4); });
  dot.setAttribute("visibility", point ? "visible" : "hidden");
  if (point) { dot.setAttribute("cx", point.at[0]); dot.setAttribute("cy", point.at[1]); said.textContent = `${name}: ${D.labels[0]} ${point.p[0].toFixed(4)}, ${Math.round(point.p[1]).toLocaleString("en")} ${D.labels[1]}`; }
  else said.textContent = name ? `${name} is brought forward.` : "The thick line is ours.";
}
svg.addEventListener("pointermove", e => {
  const b = svg.getBoundingClientRect(), x = (e.clientX - b.left) / b.width * W, y = (e.clientY - b.top) / b.height * H;
  const near = points.reduce((a, p) => Math.hypot(p.at[0] - x, p.at[1] - y) < Math.hypot(a.at[0] - x, a.at[1] - y) ? p : a);
  pick.value = near.curve.name;
  show(near.curve.name, near);
});
pick.addEventListener("change", () => show(pick.value));
const title = document.createElement("p");
title.append(Object.assign(document.createElement("strong"), { textContent: D.title }));
document.querySelector("main").replaceChildren(title, pick, svg, said);
show("");
new ResizeObserver(() => { if (frameElement) frameElement.style.height = `${document.body.offsetHeight + 4}px`; }).observe(document.body);
