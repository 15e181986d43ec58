// Charts of the numbers that the page gives an address for. They are asked for while somebody looks, and only then.
"use strict";
(() => {
  const PERIOD_MIN_MS = 10000;
  const PERIOD_MAX_MS = 300000;
  const HEIGHT = 220;
  const root = document.querySelector("[data-charts]");
  const charts = {};
  let last = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const duration = (value) => value == null ? "–" : value < 0.001 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${+(value * 1e3).toPrecision(3)} ms` : `${+value.toPrecision(3)} s`;
  const bytes = (value) => {
    if (value == null) return "–";
    for (const [unit, factor] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) if (value >= factor) return `${+(value / factor).toPrecision(3)} ${unit}`;
    return `${value} B`;
  };
  const two = (number) => String(number).padStart(2, "0");
  const clock = (at_s) => { const at = new Date(at_s * 1000); return `${two(at.getHours())}:${two(at.getMinutes())}`; };
  const day = (at_s) => { const at = new Date(at_s * 1000); return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`; };
  const times = (ticks) => ticks.map((at, n) => (n === 0 || day(at) !== day(ticks[n - 1]) ? `${clock(at)}\n${day(at)}` : clock(at)));
  const BINARY = Array.from({ length: 40 }, (_, power) => 2 ** power);
  const amount = (value) => value == null ? "–" : `${+value.toPrecision(3)}`;

  const SHAPES = {
    rate: { series: [["ended", "rate", "--chart-1"]], value: amount, fill: true },
    latency: { series: [["p50", "p50", "--chart-1"], ["p95", "p95", "--chart-2"], ["p99", "p99", "--chart-3"]], value: duration, points: true },
    errors: { series: [["failed", "failures", "--bad"]], value: amount, fill: true },
    memory: { series: [["largest", "memory_bytes", "--chart-1"]], value: bytes, points: true, steps: BINARY },
  };

  const draw = (name, data) => {
    const place = root.querySelector(`[data-chart="${name}"]`);
    const shape = SHAPES[name];
    const values = [data.at_s, ...shape.series.map(([, key]) => data[key])];
    const width = place.clientWidth;
    if (charts[name] && charts[name].width === width) { charts[name].setData(values); return; }
    charts[name]?.destroy();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    charts[name] = new uPlot({
      width, height: HEIGHT,
      cursor: { drag: { x: false, y: false } },
      legend: { live: true },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, space: 70, values: (_, ticks) => times(ticks) }, { ...axis, size: 72, ...(shape.steps && { incrs: shape.steps }), values: (_, ticks) => ticks.map(shape.value) }],
      series: [{ label: "time", value: (_, at) => (at == null ? "–" : `${day(at)} ${clock(at)}`) }, ...shape.series.map(([label, , name_]) => ({
        label, stroke: colour(name_), width: 2, spanGaps: false,
        fill: shape.fill ? `${colour(name_)}22` : undefined,
        points: shape.points ? { show: true, size: 4, fill: colour(name_) } : { show: false },
        value: (_, value) => shape.value(value),
      }))],
    }, values, place);
  };

  const show = (data) => {
    last = data;
    for (const name of Object.keys(SHAPES)) draw(name, data);
    document.querySelector("[data-total]").textContent = `${data.total} ended, ${data.failed} of them failed.${data.is_cut ? " There were more: the oldest are not counted." : ""}`;
    const list = document.querySelector("[data-errors]");
    list.replaceChildren(...Object.entries(data.errors).map(([name, count]) => {
      const item = document.createElement("li");
      const number = document.createElement("b");
      number.textContent = count;
      item.append(number, name);
      return item;
    }));
    document.querySelector("[data-no-errors]").hidden = data.failed > 0;
  };

  const redraw = () => {
    for (const name of Object.keys(charts)) { charts[name].destroy(); delete charts[name]; }
    if (last) show(last);
  };

  const ask = async () => {
    if (document.hidden) return;
    const answer = await fetch(root.dataset.charts, { headers: { "HX-Request": "true" } }).catch(() => null);
    if (answer?.status === 401) location.assign("/login?next=/charts");
    if (answer?.ok) show(await answer.json());
  };

  // A point of a long time range changes slowly.
  const period = () => Math.min(PERIOD_MAX_MS, Math.max(PERIOD_MIN_MS, (last?.step_s ?? 0) * 1000));
  const goOn = async () => { await ask(); setTimeout(goOn, period()); };

  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("visibilitychange", ask);
  goOn();
})();
