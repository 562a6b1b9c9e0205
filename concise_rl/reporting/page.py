"""What report.html looks like and does: its style sheet and its script, text of the page and no templates."""

STYLE = """
:root {
  --page: #ffffff; --card: #f6f7f9; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --wrong: #8e2a6f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1d2227; --ink: #e6e9ed; --soft: #9aa5b1; --line: #363d45; --wrong: #e39ac9;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 1.25rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 0.75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
h4 { font-size: 0.9rem; margin: 0 0 0.4rem; }
.headline {
  font-size: 1.2rem; margin: 0.75rem 0; padding: 0.75rem 1rem; border-left: 4px solid var(--ink);
  background: var(--card);
}
.facts {
  display: flex; flex-wrap: wrap; gap: 0.15rem 1.25rem; padding: 0; margin: 0.5rem 0; list-style: none;
  color: var(--soft); font-size: 0.9rem; overflow-wrap: anywhere;
}
.note, h4 span { color: var(--soft); font-size: 0.85rem; font-weight: normal; margin: 0.4rem 0; }
/* A shade at either end where a table goes on: covers that move with it hide the shade at its ends. */
.scroll {
  overflow-x: auto; background-repeat: no-repeat; background-attachment: local, local, scroll, scroll;
  background-image:
    linear-gradient(to right, var(--page) 40%, transparent), linear-gradient(to left, var(--page) 40%, transparent),
    linear-gradient(to right, var(--line), transparent), linear-gradient(to left, var(--line), transparent);
  background-position: left, right, left, right; background-size: 2rem 100%, 2rem 100%, 0.7rem 100%, 0.7rem 100%;
}
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 1.4rem 0.35rem 0; text-align: right; vertical-align: top; }
th, td { border-bottom: 1px solid var(--line); }
td span { white-space: nowrap; }
td .interval { color: var(--soft); }
th:first-child { text-align: left; font-weight: 600; position: sticky; left: 0; background: var(--page); }
.figures { display: grid; gap: 1rem; }
.figures.wide { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.figures.wide figure:first-child { grid-column: 1 / -1; }
.figures.wide figure:first-child .plot { height: 440px; }
.figures.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
figure { margin: 0; padding: 0.6rem; background: var(--card); border-radius: 8px; min-width: 0; }
figcaption { font-size: 0.9rem; font-weight: 600; margin-bottom: 0.25rem; }
.plot { height: 300px; }
.small .plot { height: 190px; }
.instead { display: none; max-width: 100%; }
.still .instead { display: block; }
.still .figures { display: none; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.75rem; }
.answer {
  background: var(--card); border-top: 3px solid var(--soft); border-radius: 4px; padding: 0.6rem 0.75rem;
}
.answer.wrong { border-top: 3px dashed var(--wrong); }
.answer.right h4 span { color: var(--ink); }
.answer.wrong h4 span { color: var(--wrong); }
.key { display: inline-block; width: 1.6rem; border-top: 3px solid #0072b2; vertical-align: middle; }
.key.thin { border-top: 1px solid #0072b2; opacity: 0.6; }
details.zero summary { margin: 0.25rem 0; font-weight: normal; font-size: 0.85rem; color: var(--soft); }
pre {
  margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.85rem/1.45 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; max-height: 26rem;
  overflow-y: auto;
}
details pre {
  max-height: none; background: var(--card); padding: 0.75rem; border-radius: 4px; margin-top: 0.5rem;
}
summary { cursor: pointer; font-weight: 600; margin-top: 2rem; }
@media (max-width: 720px) {
  .figures.wide, .pair { grid-template-columns: minmax(0, 1fr); }
  .figures.wide figure:first-child .plot { height: 400px; }
  table { font-size: 0.85rem; width: 100%; }
  th, td { padding-right: 0.6rem; }
  h1 { font-size: 1.25rem; }
  .headline { font-size: 1.05rem; }
}
.paper {
  --page: #ffffff; --card: #ffffff; --ink: #1b1f24; --soft: #4a535c; --line: #c4cad1; --wrong: #8e2a6f;
  color-scheme: light;
}
.paper main { width: 680px; padding: 0; margin: 0; }
.paper .figures.wide, .paper .figures.small { grid-template-columns: repeat(2, minmax(0, 1fr)); }
@media print {
  .paper main { width: auto; max-width: none; }
  figure, .answer, tr, .headline { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  pre { max-height: none; overflow: visible; }
  .scroll { overflow: visible; background: none; }
  th:first-child { position: static; }
  table { font-size: 0.72rem; }
  th, td { padding-right: 0.5rem; }
  td span { white-space: normal; }
}
"""

PLOTTING = """
"use strict";
const unpack = async (id) => {
  const text = atob(document.getElementById(id).textContent);
  const packed = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k += 1) packed[k] = text.charCodeAt(k);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
const loadPlotly = async () => {
  const library = document.createElement("script");
  library.textContent = await unpack("plotly");
  document.head.append(library);
};
const narrow = matchMedia("(max-width: 720px)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const themed = (layout, place) => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const small = place.closest(".small") !== null;
  const axis = (own) => ({
    ...own, title: small ? undefined : own.title,
    gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true,
    ...(own.type === "category" ? {} : { nticks: small || narrow.matches ? 5 : 9 }),
  });
  return {
    ...layout,
    xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    font: { color: colour("--ink"), size: small ? 11 : 12, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: 8, t: 8, b: 8 },
    dragmode: narrow.matches ? false : "zoom",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    ...(document.documentElement.classList.contains("paper")
      ? { width: place.clientWidth, height: place.clientHeight } : {}),
  };
};
const plotOptions = { responsive: true, displayModeBar: false };
// Paper has a width and a scheme of its own, and shows what nobody has scrolled to: all is drawn anew for it.
const forPaper = (drawAll) => {
  const scheme = (onPaper) => () => {
    document.documentElement.classList.toggle("paper", onPaper);
    drawAll(onPaper);
  };
  addEventListener("beforeprint", scheme(true));
  addEventListener("afterprint", scheme(false));
};
"""
"""What every page with figures shares: unpacking, plotly, and a layout in the page's own colours."""

SCRIPT = (
    PLOTTING
    + """
(async () => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const places = [...document.querySelectorAll(".plot")];
  if (!places.length) return;
  try {
    await loadPlotly();
  } catch (error) {
    document.body.classList.add("still");
    return;
  }
  const draw = () => places.forEach((place, k) =>
    Plotly.react(place, figures[k].data, themed(figures[k].layout, place), plotOptions));
  draw();
  const redraw = () => document.documentElement.classList.contains("paper") || draw();
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  forPaper(draw);
})();
"""
)
