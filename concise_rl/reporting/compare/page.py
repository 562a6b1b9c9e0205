"""What the comparison's page looks like and does, on top of what every report has."""

from concise_rl.reporting.page import PLOTTING
from concise_rl.reporting.page import STYLE as REPORT_STYLE

STYLE = (
    REPORT_STYLE
    + """
.chips {
  display: flex; flex-wrap: wrap; gap: 0.35rem; margin: 0.75rem 0; padding: 0.4rem 0; position: sticky; top: 0;
  z-index: 9; background: var(--page); border-bottom: 1px solid var(--line); max-height: 6.2rem; overflow-y: auto;
}
.chips button, .more {
  font: inherit; font-size: 0.85rem; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: 999px; padding: 0.2rem 0.7rem; cursor: pointer; max-width: 100%; overflow-wrap: anywhere;
}
.chips button[aria-pressed="false"] { color: var(--soft); text-decoration: line-through; }
.chips button[aria-pressed="false"] i { opacity: 0.35; }
.chips i {
  display: inline-block; width: 0.75rem; height: 0.75rem; margin-right: 0.4rem; border: 3px solid; border-radius: 50%;
}
.chips i.hollow { background: transparent !important; }
.chips i.angular { border-radius: 0; }
.figures.one .plot { height: 440px; }
.plot img { width: 100%; height: 100%; object-fit: contain; }
@media (prefers-color-scheme: dark) { .plot img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; } }
@media (prefers-color-scheme: light) { .plot img { mix-blend-mode: multiply; } }
.figures.wide figure.rows { grid-column: 1 / -1; }
figure .note { margin: 0.2rem 0 0; }
.sentences { padding: 0; margin: 0.75rem 0; list-style: none; }
.sentences li { padding: 0.25rem 0 0.25rem 0.75rem; border-left: 3px solid var(--line); margin: 0.35rem 0; }
.sentences b { overflow-wrap: anywhere; }
th:first-child { min-width: 11rem; max-width: 16rem; overflow-wrap: anywhere; }
td .interval { display: block; }
.gone { display: none; }
.controls { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 11rem), 1fr)); gap: 0.6rem; }
.controls label { font-size: 0.8rem; color: var(--soft); display: block; min-width: 0; }
.controls select, .controls input {
  font: inherit; width: 100%; padding: 0.4rem; color: var(--ink); background: var(--card);
  border: 1px solid var(--line); border-radius: 6px;
}
.problem { border-top: 1px solid var(--line); padding: 0.9rem 0; }
.problem .prompt { max-height: 12rem; margin-bottom: 0.5rem; }
.answer { min-width: 0; }
.answer.none { border-color: var(--soft); }
mark { background: #ffd54a; color: #1b1f24; }
.more { padding: 0.5rem 1.2rem; }
.more[hidden] { display: none; }
.unpackable { display: none; }
.still .unpackable { display: block; }
.still .figures:not(.one), .still .controls, .still .browser { display: none; }
.browser { margin-top: 0.75rem; }
@media (max-width: 720px) { th:first-child { min-width: 7rem; max-width: 8rem; } }
:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
@media print {
  .chips { position: static; max-height: none; }
  section:has(.browser) { display: none; }
  th:first-child { min-width: 0; }
}
"""
)

SCRIPT = (
    PLOTTING
    + """
const page = JSON.parse(document.getElementById("page").textContent);
const hidden = new Set();
const element = (kind, name, text) => {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};

// --- figures: drawn when they come near the screen, without the runs that are switched off -------------------------
const places = [...document.querySelectorAll(".plot")];
const rowwise = ["y", "q1", "median", "q3", "lowerfence", "upperfence"];
const withoutHidden = (trace) => {
  // Names beside points need room that a phone has not.
  const mode = narrow.matches && trace.mode === "markers+text" ? "markers" : trace.mode;
  if (!Array.isArray(trace.meta)) return { ...trace, mode, visible: !hidden.has(trace.meta) };
  const kept = trace.meta.map((run, k) => k).filter((k) => !hidden.has(trace.meta[k]));
  const rows = Object.fromEntries(rowwise.map((key) => [key, kept.map((k) => trace[key][k])]));
  return { ...trace, ...rows, visible: kept.length > 0 };
};
const drawInto = (place) => {
  place.dataset.drawn = "yes";
  if (place.querySelector("img")) place.replaceChildren();
  if (place.id === "lengths-of-two") return histogram();
  const figure = page.figures[place.dataset.figure];
  if (figure.rows) place.style.height = `${90 + 34 * figure.rows}px`;
  return Plotly.react(place, figure.data.map(withoutHidden), themed(figure.layout, place), plotOptions);
};
const redraw = () => places.filter((place) => place.dataset.drawn).forEach(drawInto);
const watchPlaces = () => new Promise((drawn) => {
  const near = new IntersectionObserver((seen) => {
    seen.filter((one) => one.isIntersecting).forEach((one) => {
      near.unobserve(one.target);
      drawInto(one.target);
    });
    drawn();
  }, { rootMargin: "300px" });
  places.forEach((place) => near.observe(place));
  if (!places.length) drawn();
});
document.querySelectorAll(".chips button[data-run]").forEach((chip) => chip.addEventListener("click", () => {
  const run = Number(chip.dataset.run);
  if (!hidden.delete(run)) hidden.add(run);
  chip.setAttribute("aria-pressed", String(!hidden.has(run)));
  document.querySelectorAll(`tr[data-run="${run}"], li[data-run="${run}"]`)
    .forEach((row) => row.classList.toggle("gone", hidden.has(run)));
  redraw();
}));

// --- completions, two runs side by side ----------------------------------------------------------------------------
const unpacked = new Map();
const block = (id) => {
  if (!unpacked.has(id)) unpacked.set(id, unpack(id).then(JSON.parse));
  return unpacked.get(id);
};
const control = (name) => document.getElementById(name);
const [RIGHT, UNSCORABLE, TRUNCATED] = [1, 2, 4];
const right = (row) => (row.state & RIGHT) > 0;
const tests = {
  all: () => true,
  worse: (a, b) => right(a) && !right(b),
  better: (a, b) => !right(a) && right(b),
  wrong: (a, b) => !right(a) && !right(b),
  shorter: (a, b) => b.tokens < a.tokens,
  longer: (a, b) => b.tokens > a.tokens,
  cut: (a, b) => (b.state & TRUNCATED) > 0,
};
const orders = {
  given: null,
  saving: (one, two) => (two.a.tokens - two.b.tokens) - (one.a.tokens - one.b.tokens),
  growth: (one, two) => (one.a.tokens - one.b.tokens) - (two.a.tokens - two.b.tokens),
  longest: (one, two) => two.b.tokens - one.b.tokens,
};
let pairs = [];
let matching = [];
let shown = 0;

const rowsByProblem = (rows) => {
  const grouped = new Map();
  rows.problem.forEach((problem, k) => {
    if (!grouped.has(problem)) grouped.set(problem, []);
    grouped.get(problem).push({ tokens: rows.tokens[k], state: rows.state[k], text: rows.text[k] });
  });
  return grouped;
};
// The k-th sample of one run beside the k-th of the other.
const paired = (problems, first, second) => {
  const [a, b] = [rowsByProblem(first), rowsByProblem(second)];
  const made = [];
  problems.prompt.forEach((prompt, p) => {
    const [left, also] = [a.get(p) || [], b.get(p) || []];
    for (let k = 0; k < Math.min(left.length, also.length); k += 1) {
      made.push({ prompt, reference: problems.reference[p], difficulty: problems.difficulty[p], sample: k,
                  samples: Math.min(left.length, also.length), a: left[k], b: also[k] });
    }
  });
  return made;
};
const marked = (into, text, query) => {
  const lower = text.toLowerCase();
  let from = 0;
  // A letter may change its length in lower case; then places do not carry over, and nothing is marked.
  for (let at; query && lower.length === text.length && (at = lower.indexOf(query, from)) >= 0;) {
    into.append(text.slice(from, at), element("mark", "", text.slice(at, at + query.length)));
    from = at + query.length;
  }
  into.append(text.slice(from));
  return into;
};
const verdict = (row) => {
  const words = [row.state & UNSCORABLE ? "no verdict" : right(row) ? "right" : "wrong"];
  if (row.state & TRUNCATED) words.push("cut at the limit");
  return words.join(", ");
};
const answer = (row, name, query) => {
  const card = element("div", `answer ${row.state & UNSCORABLE ? "none" : right(row) ? "right" : "wrong"}`);
  const head = element("h4", "", `${name} `);
  head.append(element("span", "", `${row.tokens} tokens, ${verdict(row)}`));
  card.append(head, marked(element("pre"), row.text, query));
  return card;
};
const card = (pair, query) => {
  const made = element("article", "problem");
  const facts = [`Reference answer: ${pair.reference}`];
  if (pair.difficulty) facts.push(`difficulty ${pair.difficulty}`);
  if (pair.samples > 1) facts.push(`sample ${pair.sample + 1} of ${pair.samples}`);
  facts.push(`${pair.b.tokens - pair.a.tokens > 0 ? "+" : ""}${pair.b.tokens - pair.a.tokens} tokens`);
  const both = element("div", "pair");
  both.append(answer(pair.a, `A: ${page.runs[control("a").value]}`, query),
              answer(pair.b, `B: ${page.runs[control("b").value]}`, query));
  made.append(marked(element("pre", "prompt"), pair.prompt, query), element("p", "note", facts.join(" · ")), both);
  return made;
};
const more = () => {
  const query = control("query").value.trim().toLowerCase();
  const next = matching.slice(shown, shown + 10);
  control("pairs").append(...next.map((pair) => card(pair, query)));
  shown += next.length;
  control("more").hidden = shown >= matching.length;
};
const filter = () => {
  const query = control("query").value.trim().toLowerCase();
  const test = tests[control("filter").value];
  const order = orders[control("order").value];
  matching = pairs.filter((pair) => test(pair.a, pair.b) && (!query ||
    [pair.prompt, pair.reference, pair.a.text, pair.b.text].some((text) => text.toLowerCase().includes(query))));
  if (order) matching.sort(order);
  control("count").textContent = `${matching.length} of ${pairs.length}`;
  control("pairs").replaceChildren();
  shown = 0;
  more();
};
// Each run in its own colour; two of one colour are told apart by the page's ink.
const pairColours = () => {
  const [a, b] = ["a", "b"].map((side) => page.colours[control(side).value]);
  return a === b ? [a, getComputedStyle(document.documentElement).getPropertyValue("--ink").trim()] : [a, b];
};
const histogram = () => {
  const traces = [];
  [["a", "A"], ["b", "B"]].forEach(([side, name], k) => [true, false].forEach((isRight) => {
    const lengths = pairs.map((pair) => pair[side]).filter((row) => right(row) === isRight).map((row) => row.tokens);
    traces.push({
      type: "histogram", name: `${name} ${isRight ? "right" : "wrong"}`, x: lengths, nbinsx: 50, bingroup: "lengths",
      opacity: isRight ? 0.55 : 0.9,
      marker: { color: pairColours()[k], pattern: { shape: isRight ? "" : "/" } },
    });
  }));
  const layout = { barmode: "overlay", showlegend: true, xaxis: { title: { text: "tokens of a completion" } },
                   yaxis: { title: { text: "completions" } } };
  const place = control("lengths-of-two");
  return Plotly.react(place, traces, themed(layout, place), plotOptions);
};
// A slow block must not overwrite what was chosen after it.
let choice = 0;
const choose = async () => {
  const mine = choice += 1;
  const b = control("benchmark").value;
  const ids = [`p${b}`, `c${b}-${control("a").value}`, `c${b}-${control("b").value}`];
  const [problems, first, second] = await Promise.all(ids.map(block));
  if (mine !== choice) return;
  pairs = paired(problems, first, second);
  filter();
  redraw();
};
const offerRuns = () => {
  const runs = page.benchmarks[control("benchmark").value].runs;
  ["a", "b"].forEach((side) => {
    const before = control(side).value;
    control(side).replaceChildren(...runs.map((run) => {
      const option = element("option", "", page.runs[run]);
      option.value = run;
      return option;
    }));
    const preferred = page.benchmarks[control("benchmark").value][side];
    control(side).value = runs.includes(Number(before)) && before !== "" ? before : preferred;
  });
  return choose();
};
const startBrowser = () => {
  let pause;
  control("query").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(filter, 150); });
  ["filter", "order"].forEach((name) => control(name).addEventListener("change", filter));
  ["a", "b"].forEach((name) => control(name).addEventListener("change", choose));
  control("benchmark").addEventListener("change", offerRuns);
  control("more").addEventListener("click", more);
  return offerRuns();
};

(async () => {
  if (!window.DecompressionStream) {
    document.body.classList.add("still");
    return;
  }
  if (control("benchmark")) await startBrowser();
  const frame = () => new Promise(requestAnimationFrame);
  await frame().then(frame);
  // Everything can be read by now, the front as a picture; plotly alone takes longer than all of this.
  document.documentElement.dataset.shownMs = Math.round(performance.now());
  await loadPlotly();
  await watchPlaces();
  const onScreen = () => document.documentElement.classList.contains("paper") || redraw();
  dark.addEventListener("change", onScreen);
  narrow.addEventListener("change", onScreen);
  forPaper((onPaper) => (onPaper ? places.filter((one) => one.id !== "lengths-of-two").forEach(drawInto) : redraw()));
  document.documentElement.dataset.readyMs = Math.round(performance.now());
})();
"""
)
