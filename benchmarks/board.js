"use strict";
const board = JSON.parse(document.getElementById("board").textContent);
const at = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 720px)");
const state = { bed: 0, price: 0.01, kinds: new Set(board.kinds), layers: new Set(["seeds", "sweeps"]), chosen: null };

// --- what things are worth -----------------------------------------------------------------------------------------
const worth = (a, t) => a - state.price * t;
const bed = () => board.beds[state.bed];
const bestCorner = (corners) => corners.reduce((best, [t, a]) => (worth(a, t) > worth(best[1], best[0]) ? [t, a] : best));
const bestValue = () => { const [t, a] = bestCorner(bed().frontier); return worth(a, t); };
const regret = (entry) => 100 * (bestValue() - worth(entry.a, entry.t));
// Half a 95 % interval over problems: accuracy and tokens of a problem go together.
const reach = ({ covariance: [aa, at_, tt] }) =>
  196 * Math.sqrt(Math.max(0, aa - 2 * state.price * at_ + state.price * state.price * tt));
const shown = () => bed().entries.filter((entry) => entry.kinds.some((kind) => state.kinds.has(kind)))
  .sort((one, two) => regret(one) - regret(two));
const ink = (entry) => `var(--${entry.kinds ? entry.kinds[0] : "loss"})`;
const percent = (a) => `${(100 * a).toFixed(1)} %`;

// --- elements ------------------------------------------------------------------------------------------------------
const element = (name, attributes = {}, ...inside) => {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => (key in made && key !== "style"
    ? (made[key] = value) : made.setAttribute(key, value)));
  made.append(...inside);
  return made;
};
const shape = (name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (text !== undefined) made.textContent = text;
  return made;
};

// --- a plot: tokens across, accuracy up ------------------------------------------------------------------------------
const ticks = (low, high, about) => {
  const raw = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(Number(v.toPrecision(10)));
  return found;
};
const plot = (svg, points, small) => {
  const width = svg.parentNode.clientWidth - 20;
  const height = small ? 210 : Math.min(520, Math.max(340, 0.55 * width));
  const edge = { left: 38, right: small ? 10 : 16, top: 12, bottom: 38 };
  // Points beyond three times what lies between the quartiles sit on the edge: they would squeeze the others together.
  const fences = (values) => {
    const sorted = [...values].sort((one, other) => one - other);
    const [low, high] = [0.25, 0.75].map((share) => sorted[Math.floor(share * (sorted.length - 1))]);
    return sorted.length < 8 ? [-Infinity, Infinity] : [low - 3 * (high - low), high + 3 * (high - low)];
  };
  const [inT, inA] = [0, 1].map((k) => fences(points.map((p) => p[k])));
  const near = points.filter(([t, a]) => t >= inT[0] && t <= inT[1] && a >= inA[0] && a <= inA[1]);
  const range = (values, least) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = Math.max(least, 0.05 * (high - low));
    return [low - room, high + room];
  };
  const [t0, t1] = range(near.map((p) => p[0]), 0.5);
  const [a0, a1] = range(near.map((p) => p[1]), 0.01);
  const within = (share) => Math.min(1, Math.max(0, share));
  const x = (t) => edge.left + within((t - t0) / (t1 - t0)) * (width - edge.left - edge.right);
  const y = (a) => height - edge.bottom - within((a - a0) / (a1 - a0)) * (height - edge.top - edge.bottom);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  ticks(t0, t1, width < 500 ? 5 : 9).forEach((t) => {
    svg.append(shape("line", { class: "grid", x1: x(t), x2: x(t), y1: edge.top, y2: height - edge.bottom }),
               shape("text", { class: "axis", x: x(t), y: height - edge.bottom + 15, "text-anchor": "middle" }, t));
  });
  ticks(100 * a0, Math.min(100, 100 * a1), small ? 4 : 7).forEach((a) => {
    svg.append(shape("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(a / 100), y2: y(a / 100) }),
               shape("text", { class: "axis", x: edge.left - 5, y: y(a / 100) + 4, "text-anchor": "end" }, a));
  });
  svg.append(shape("text", { class: "axis", x: width - edge.right, y: height - 6, "text-anchor": "end" },
                   small ? "tokens" : "mean tokens of a completion (fewer is better)"),
             shape("text", { class: "axis", x: 0, y: 8 }, "accuracy, %"));
  const line = (corners, attributes) => svg.append(
    shape("polyline", { points: corners.map(([t, a]) => `${x(t)},${y(a)}`).join(" "), ...attributes }));
  return { svg, x, y, line, range: [t0, t1, a0, a1], width, edge };
};
const dot = (to, entry, [t, a], radius) => {
  const chosen = state.chosen === entry.name;
  const faint = state.chosen !== null && !chosen ? "faint" : "";
  const mark = shape("circle", { cx: to.x(t), cy: to.y(a), r: chosen ? radius + 2 : radius, class: faint,
                                 fill: ink(entry), stroke: "var(--card)", "stroke-width": 1 });
  mark.append(shape("title", {}, `${entry.name}: ${percent(a)} at ${t.toFixed(1)} tokens`));
  mark.addEventListener("click", (event) => { event.stopPropagation(); choose(entry.name); });
  to.svg.append(mark);
};

// Names go where none is yet, the best ranked first; on a phone only the first few.
const writeNames = (to, entries) => {
  const dots = shown().map((entry) => [to.x(entry.t), to.y(entry.a)]);
  const taken = dots.map(([x, y]) => [x - 4, y - 4, x + 4, y + 4]);
  const most = narrow.matches ? 6 : 24;
  entries.slice(0, most).forEach((entry) => {
    const [x, y, wide] = [to.x(entry.t), to.y(entry.a), 6.6 * entry.name.length];
    const places = [8, 18, 30].flatMap((up) => [[7, up], [7, -up], [-7 - wide, up], [-7 - wide, -up]]);
    const box = places.map(([dx, dy]) => [x + dx, y - dy - 5, x + dx + wide, y - dy + 7]).find((own) =>
      own[0] > to.edge.left && own[2] < to.width && own[1] > 0 &&
      !taken.some((other) => own[0] < other[2] && other[0] < own[2] && own[1] < other[3] && other[1] < own[3]));
    if (!box) return;
    taken.push(box);
    if (Math.abs((box[1] + box[3]) / 2 - y) > 15) {
      to.svg.append(shape("line", { class: "grid", x1: x, y1: y, x2: box[0] > x ? box[0] : box[2], y2: (box[1] + box[3]) / 2 }));
    }
    const faint = state.chosen !== null && state.chosen !== entry.name ? "halo faint" : "halo";
    to.svg.append(shape("text", { x: box[0], y: box[3] - 2, class: faint }, entry.name));
  });
};

// Ends of an entry's 95 % intervals, across and up.
const bars = ({ t, a, covariance }) => {
  const [up, , across] = covariance.map((v) => 1.96 * Math.sqrt(Math.abs(v)));
  return [[t - across, a], [t + across, a], [t, a - up], [t, a + up]];
};
const drawMain = (entries) => {
  const own = bed();
  const everything = [...own.frontier, [own.before.t, own.before.a], ...own.entries.flatMap((e) => [...bars(e), ...e.seeds])];
  const to = plot(at("main"), everything, false);
  to.line(own.frontier, { class: "best" });
  const [t0, t1, , a1] = to.range;
  // The line of equal value through the best corner: regret is the way straight up to it.
  const value = bestValue();
  const right = Math.min(t1, (a1 - value) / state.price);
  to.line([[t0, value + state.price * t0], [right, value + state.price * right]], { class: "value" });
  if (state.layers.has("sweeps")) {
    Object.entries(own.sweeps).forEach(([method, points]) => {
      const entry = entries.find((e) => e.method === method);
      if (!entry) return;
      const faint = state.chosen !== null && !state.chosen.startsWith(method) ? "sweep faint" : "sweep";
      to.line(points.map((p) => [p.t, p.a]), { class: faint, stroke: ink(entry) });
      points.forEach((p) => {
        const mark = shape("circle", { cx: to.x(p.t), cy: to.y(p.a), r: 3.5, fill: "var(--card)", stroke: ink(entry), class: faint });
        mark.append(shape("title", {}, `${method}, ${p.coefficient} ${p.value}: ${percent(p.a)} at ${p.t.toFixed(1)} tokens`));
        to.svg.append(mark);
      });
    });
  }
  entries.forEach((entry) => {
    const faint = state.chosen !== null && state.chosen !== entry.name ? "bar faint" : "bar";
    const [left, right_, low, high] = bars(entry);
    to.line([left, right_], { class: faint, stroke: ink(entry) });
    to.line([low, high], { class: faint, stroke: ink(entry) });
    if (state.layers.has("seeds") && entry.seeds.length > 1) entry.seeds.forEach((seed) => dot(to, entry, seed, 2));
  });
  dot(to, own.before, [own.before.t, own.before.a], 6);
  [...entries].reverse().forEach((entry) => dot(to, entry, [entry.t, entry.a], 5.5));
  writeNames(to, [own.before, ...entries]);
  const chosen = entries.find((entry) => entry.name === state.chosen);
  if (chosen) {
    to.svg.append(shape("line", { class: "drop", x1: to.x(chosen.t), x2: to.x(chosen.t), y1: to.y(chosen.a),
                                  y2: Math.max(0, to.y(value + state.price * chosen.t)) }));
  }
  at("title").textContent = own.title;
};
const drawLevels = (entries) => {
  const own = bed();
  at("levels").replaceChildren(...own.levels.map((level) => {
    const svg = shape("svg", { role: "img", "aria-label": level.name });
    return element("figure", {}, element("figcaption", { textContent: level.name }), svg);
  }));
  own.levels.forEach((level, k) => {
    const svg = at("levels").children[k].querySelector("svg");
    const everything = [...level.frontier, own.before.levels[k], ...own.entries.map((entry) => entry.levels[k])];
    const to = plot(svg, everything, true);
    to.line(level.frontier, { class: "best" });
    dot(to, own.before, own.before.levels[k], 4);
    [...entries].reverse().forEach((entry) => dot(to, entry, entry.levels[k], 4));
  });
};

// --- the table -------------------------------------------------------------------------------------------------------
const HEADS = [["", ""], ["method", ""], ["regret, points", ""], ["accuracy", ""], ["tokens", ""],
               ["hard half", "wide"], ["gap over budgets", "wide"], ["sampled, thousand", "wide"], ["taught", "wide"], ["seeds", "wide"]];
const rank = (entries) => {
  at("ranking").tHead.replaceChildren(element("tr", {}, ...HEADS.map(([text, kind]) =>
    element("th", { scope: "col", className: kind, textContent: text }))));
  const worst = Math.max(...entries.map(regret), 1e-9);
  at("ranking").tBodies[0].replaceChildren(...entries.map((entry, place) => {
    const meter = element("span", { className: "meter", style: `width:${Math.max(0, 100 * regret(entry) / worst)}%;background:${ink(entry)}` });
    const [t, a] = entry.hard;
    const texts = [percent(entry.a), entry.t.toFixed(1)];
    const more = [`${(100 * a).toFixed(0)} % @ ${t.toFixed(1)}`, entry.gap === null ? "–" : entry.gap.toFixed(1), (entry.sampled / 1000).toFixed(0), `${(100 * entry.taught).toFixed(0)} %`, entry.seeds.length];
    const line = element("tr", { tabIndex: 0, className: state.chosen === entry.name ? "chosen" : "" },
      element("td", { textContent: place + 1 }),
      element("th", { scope: "row" }, entry.name, element("span", { className: "made", textContent: entry.made })),
      element("td", {}, element("span", { textContent: `${regret(entry).toFixed(1)} ` }),
              element("span", { className: "interval", textContent: `± ${reach(entry).toFixed(1)}` }), meter),
      ...texts.map((text) => element("td", { textContent: text })),
      ...more.map((text) => element("td", { className: "wide", textContent: text })));
    line.addEventListener("click", () => choose(entry.name));
    line.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(entry.name); });
    return line;
  }));
};
const tell = (entries) => {
  const place = entries.findIndex((entry) => entry.name === state.chosen);
  const [t, a] = bestCorner(bed().frontier);
  const best = `The line is the best that is possible; at this price its best point is ${percent(a)} at ${t.toFixed(1)} tokens. ` +
    "Regret is the way straight up to the dashed line. What lies far off sits on the edge. Tap a point or a row.";
  const entry = entries[place];
  at("told").textContent = !entry ? best
    : `${entry.name}, rank ${place + 1} of ${entries.length}: ${percent(entry.a)} at ${entry.t.toFixed(1)} tokens, regret ` +
      `${regret(entry).toFixed(1)} ± ${reach(entry).toFixed(1)} points. ${entry.question}`;
};

// --- controls --------------------------------------------------------------------------------------------------------
const button = (text, pressed, onclick, colour) => {
  const made = element("button", { type: "button", onclick }, text);
  made.setAttribute("aria-pressed", pressed);
  if (colour) made.prepend(element("i", { style: `background:${colour}` }));
  return made;
};
const toggle = (set, item) => { if (!set.delete(item)) set.add(item); draw(); };
const short = (price) => Number(price.toPrecision(2)).toString();
const controls = () => {
  at("beds").replaceChildren(...board.beds.map((own, k) => button(own.title, k === state.bed, () => {
    state.bed = k;
    state.chosen = null;
    draw();
  })));
  at("presets").replaceChildren(...board.prices.map((price) => button(short(price), price === state.price, () => {
    state.price = price;
    at("price").value = Math.log10(price);
    draw();
  })));
  const present = new Set(bed().entries.flatMap((entry) => entry.kinds));
  at("kinds").replaceChildren(...board.kinds.filter((kind) => present.has(kind)).map((kind) =>
    button(kind, state.kinds.has(kind), () => toggle(state.kinds, kind), `var(--${kind})`)));
  at("layers").replaceChildren(...[["seeds", "seeds, small"], ["sweeps", "coefficients, as lines"]].map(([layer, text]) =>
    button(text, state.layers.has(layer), () => toggle(state.layers, layer))));
  at("price-text").textContent = `${short(state.price)} of a right answer; ${Math.round(1 / state.price)} tokens cost one`;
};
const choose = (name) => { state.chosen = state.chosen === name ? null : name; draw(); };
const draw = () => {
  const entries = shown();
  controls();
  drawMain(entries);
  drawLevels(entries);
  rank(entries);
  tell(entries);
};
document.body.classList.add("scripted");
at("price").value = Math.log10(state.price);
at("price").addEventListener("input", () => { state.price = 10 ** Number(at("price").value); draw(); });
at("main").addEventListener("click", () => choose(state.chosen));
addEventListener("resize", draw);
draw();
