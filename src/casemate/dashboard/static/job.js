// One job while it goes on: its log, line by line, and what it uses. Texts of programs are only ever set as text.
"use strict";
(() => {
  const LINES_MAX = 2000;
  const POINTS_MAX = 600;
  const HEIGHT = 150;
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
  const visible = (text) => text.replace(/\r$/, "").replace(UNSEEN, (char) => {
    const code = char.charCodeAt(0);
    return code < 128 ? `^${String.fromCharCode(code ^ 64)}` : `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
  const decoded = (base64) => new TextDecoder().decode(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)));

  // The log -----------------------------------------------------------------------------------------
  const log = document.querySelector("[data-log]");
  const state = document.querySelector("[data-log-state]");
  let waiting = [];
  const show = () => {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    log.append(...waiting.slice(-LINES_MAX).map(([kind, text]) => {
      const line = document.createElement("div");
      line.className = kind;
      line.textContent = text;
      return line;
    }));
    waiting = [];
    while (log.childElementCount > LINES_MAX) log.firstElementChild.remove();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  };
  const add = (kind, text) => {
    if (!waiting.length) requestAnimationFrame(show);
    waiting.push([kind, text]);
  };
  const source = new EventSource(log.dataset.log);
  source.addEventListener("log", (event) => {
    const line = JSON.parse(event.data);
    add(line.stream === "stderr" ? "error" : "plain", visible(line.text ?? decoded(line.base64)));
  });
  source.addEventListener("missed", (event) => add("missed", `… ${JSON.parse(event.data).lines} lines are not kept …`));
  source.addEventListener("end", (event) => {
    source.close();
    state.textContent = `The job has ended: ${JSON.parse(event.data).state}.`;
  });
  source.addEventListener("open", () => { state.textContent = "Following …"; });
  source.addEventListener("error", () => {
    state.textContent = source.readyState === EventSource.CLOSED ? "Not followed any more; load the page again." : "Not connected; trying again.";
  });

  // What it uses ------------------------------------------------------------------------------------
  const root = document.querySelector("[data-usage-charts]");
  const data = { at: [], memory_bytes: [], cpus: [] };
  const charts = {};
  let last = null;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bytes = (value) => {
    if (value == null) return "–";
    for (const [unit, factor] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) if (value >= factor) return `${+(value / factor).toPrecision(3)} ${unit}`;
    return `${value} B`;
  };
  const amount = (value) => (value == null ? "–" : `${+value.toPrecision(2)}`);
  const seconds = (value) => (value == null ? "–" : `${+value.toPrecision(3)} s`);
  const BINARY = Array.from({ length: 40 }, (_, power) => 2 ** power);
  const SHAPES = { memory_bytes: ["memory", bytes, "--chart-1", BINARY], cpus: ["processors", amount, "--chart-2"] };

  const draw = (name) => {
    const place = root.querySelector(`[data-usage-chart="${name}"]`);
    const [label, value, stroke, steps] = SHAPES[name];
    const values = [data.at, data[name]];
    const width = place.clientWidth;
    if (charts[name] && charts[name].width === width) { charts[name].setData(values); return; }
    charts[name]?.destroy();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    charts[name] = new uPlot({
      width, height: HEIGHT,
      cursor: { drag: { x: false, y: false } },
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, space: 70, values: (_, ticks) => ticks.map(seconds) }, { ...axis, size: 72, ...(steps && { incrs: steps }), values: (_, ticks) => ticks.map(value) }],
      series: [{ label: "after", value: (_, at) => seconds(at) }, { label, stroke: colour(stroke), width: 2, fill: `${colour(stroke)}22`, points: { show: false }, value: (_, each) => value(each) }],
    }, values, place);
  };

  const take = () => {
    const found = document.querySelector("[data-usage]")?.dataset.usage;
    if (!found || found === last) return;
    last = found;
    const [at, memory, cpu] = found.split(" ").map(Number);
    const before = data.at.length - 1;
    if (before >= 0 && at <= data.at[before]) { for (const each of Object.values(data)) each.length = 0; take.cpu = undefined; }
    data.cpus.push(take.cpu === undefined ? (at > 0 ? cpu / at : 0) : Math.max(0, (cpu - take.cpu) / (at - data.at[data.at.length - 1])));
    take.cpu = cpu;
    data.at.push(at);
    data.memory_bytes.push(memory);
    for (const each of Object.values(data)) if (each.length > POINTS_MAX) each.shift();
    root.hidden = data.at.length < 2;
    if (!root.hidden) for (const name of Object.keys(SHAPES)) draw(name);
  };
  const redraw = () => {
    for (const name of Object.keys(charts)) { charts[name].destroy(); delete charts[name]; }
    if (!root.hidden) for (const name of Object.keys(SHAPES)) draw(name);
  };
  let resizing = 0;
  window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("htmx:after:swap", take);
  new MutationObserver(take).observe(document.querySelector("[data-live]"), { subtree: true, childList: true, attributes: true, attributeFilter: ["data-usage"] });
  take();
})();
