// Live charts of a workload's usage. The server keeps the latest measurement; the rest is kept here.

import { ask } from "./streams.js";
import uPlot from "./vendor/uplot.js";

const EVERY = 2000; // milliseconds between questions; hosts measure more rarely
const KEPT = 15 * 60; // seconds
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const COLOURS = { light: ["#2563c9", "#c2410c"], dark: ["#8db4f5", "#fb923c"] };

const root = document.getElementById("charts");
const note = document.getElementById("charts-note");
const key = `usage-${root.dataset.id}`;

const CHARTS = {
  cpu: { series: [{ label: "CPU", value: (now) => percent(now.usage.cpus) }], show: (value) => `${round(value)} %`, least: 5, step: 5 },
  memory: { series: [{ label: "Memory", value: (now) => now.usage.memory }], show: amount, limit: (now) => now.memory, least: 2 ** 20, binary: true },
  disk: {
    series: [
      { label: "Read", value: (now, before) => rate(now, before, "disk_read") },
      { label: "Written", value: (now, before) => rate(now, before, "disk_written") },
    ],
    show: (value) => `${amount(value)}/s`,
    least: 1024,
    binary: true,
  },
  network: {
    series: [
      { label: "Received", value: (now, before) => rate(now, before, "network_received") },
      { label: "Sent", value: (now, before) => rate(now, before, "network_sent") },
    ],
    show: (value) => `${amount(value)}/s`,
    least: 1024,
    binary: true,
  },
};

function percent(cpus) {
  return cpus === null || cpus === undefined ? null : 100 * cpus;
}

function round(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, "");
}

function amount(bytes) {
  let [value, unit] = [bytes, 0];
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit ? round(value) : value.toFixed(0)} ${UNITS[unit]}`;
}

/** A second, since the measurement before; unknown where the workload began anew in between. */
function rate(now, before, name) {
  if (!before) return null;
  const seconds = (Date.parse(now.usage.at) - Date.parse(before.usage.at)) / 1000;
  const grown = now.usage[name] - before.usage[name];
  return seconds > 0 && grown >= 0 ? grown / seconds : null;
}

let seen = kept();
const plots = {};

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? [];
  } catch {
    return [];
  }
}

function dark() {
  return document.documentElement.dataset.bsTheme === "dark";
}

function binarySplits(_plot, _axis, low, high) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(Math.max(high, 1)) / Math.log(1024)));
  const rough = (high - low) / unit / 3;
  const step = [1, 2, 4, 5, 10, 20, 25, 50, 100, 128, 200, 256, 512].find((one) => one >= rough) ?? 1024;
  const size = rough <= 0.5 ? unit / 2 : step * unit;
  return Array.from({ length: Math.floor(high / size) + 1 }, (_, at) => at * size);
}

function make(name) {
  const chart = CHARTS[name];
  const element = document.getElementById(`chart-${name}`);
  const colours = COLOURS[dark() ? "dark" : "light"];
  const lines = dark() ? "#2b3648" : "#e4e8ee";
  const text = dark() ? "#a9b4c6" : "#59667a";
  const axis = { stroke: text, grid: { stroke: lines, width: 1 }, ticks: { stroke: lines, width: 1 }, font: "11px sans-serif" };
  const options = {
    width: element.clientWidth,
    height: 180,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, sync: { key: "usage" }, points: { size: 7 } },
    scales: {
      x: { time: true, range: () => range() },
      y: { range: (_plot, _low, high) => [0, Math.max(chart.least, (high ?? 0) * 1.15)] },
    },
    axes: [
      { ...axis, space: 70, size: 32, values: [[60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
      { ...axis, size: 74, values: (_plot, values) => values.map(chart.show), ...(chart.binary ? { splits: binarySplits } : {}) },
    ],
    series: [
      {},
      ...chart.series.map((series, index) => ({
        label: series.label,
        stroke: colours[index],
        fill: chart.series.length === 1 ? `${colours[index]}22` : undefined,
        width: 2,
        dash: index ? [6, 3] : undefined,
        points: { show: seen.length < 40, size: 4 },
        spanGaps: false,
      })),
    ],
    hooks: { setCursor: [(plot) => legend(name, plot.cursor.idx)] },
  };
  plots[name]?.destroy();
  plots[name] = new uPlot(options, values(name), element);
  legend(name, null);
}

function range() {
  const end = seen.length ? Date.parse(seen.at(-1).usage.at) / 1000 : Date.now() / 1000;
  const begin = seen.length ? Date.parse(seen[0].usage.at) / 1000 : end;
  return [Math.max(end - KEPT, Math.min(begin, end - 120)), end];
}

function values(name) {
  const times = seen.map((one) => Date.parse(one.usage.at) / 1000);
  const columns = CHARTS[name].series.map(({ value }) => seen.map((one, at) => value(one, seen[at - 1])));
  return [times, ...columns];
}

/** What the colours stand for, with the values under the pointer, or the latest. */
function legend(name, at) {
  const chart = CHARTS[name];
  const plot = plots[name];
  const place = at ?? seen.length - 1;
  const colours = COLOURS[dark() ? "dark" : "light"];
  const shown = chart.series.map(({ label }, index) => {
    const entry = document.createElement("span");
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    swatch.setAttribute("viewBox", "0 0 12 12");
    swatch.setAttribute("aria-hidden", "true");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("d", "M0 6h12");
    line.setAttribute("stroke", colours[index]);
    line.setAttribute("stroke-width", "3");
    if (index) line.setAttribute("stroke-dasharray", "4 2");
    swatch.append(line);
    const value = plot?.data[index + 1]?.[place];
    entry.append(swatch, `${label}${value === null || value === undefined ? "" : ` ${chart.show(value)}`}`);
    return entry;
  });
  if (at !== null && at !== undefined && seen[at]) {
    const time = document.createElement("span");
    time.textContent = new Date(seen[at].usage.at).toLocaleTimeString();
    shown.push(time);
  }
  document.getElementById(`chart-${name}-legend`).replaceChildren(...shown);
  const latest = values(name).slice(1).map((column) => column.at(-1));
  const known = latest.filter((value) => value !== null && value !== undefined);
  document.getElementById(`chart-${name}-now`).textContent = known.length ? known.map(chart.show).join(" · ") : "–";
}

function total(usage) {
  for (const element of root.querySelectorAll("[data-total]")) {
    const name = element.dataset.total;
    const value = usage[name];
    if (value === null || value === undefined) element.textContent = "–";
    else if (name === "at") element.textContent = new Date(value).toLocaleTimeString();
    else if (name === "pids") element.textContent = String(value);
    else if (name === "cpu_seconds") element.textContent = `${value.toFixed(1)} s`;
    else element.textContent = amount(value);
  }
}

function redraw() {
  for (const name of Object.keys(CHARTS)) {
    plots[name].setData(values(name));
    legend(name, null);
  }
}

function tell(now) {
  if (!now.usage) {
    note.textContent = now.state === "running" ? "Its host has not measured it yet." : `It is ${now.state}: nothing is used.`;
    return;
  }
  const since = new Date(seen[0].usage.at).toLocaleTimeString();
  const gaps = seen.slice(1).map((one, at) => (Date.parse(one.usage.at) - Date.parse(seen[at].usage.at)) / 1000);
  const every = gaps.length ? `, measured every ${Math.round(gaps.sort((a, b) => a - b)[gaps.length >> 1])} s by its host` : "";
  note.textContent = `Since ${since}, when you opened it${every}. virtmgr keeps no history; this page keeps 15 minutes.`;
}

async function look() {
  if (document.hidden) return;
  try {
    const now = await ask(root.dataset.source);
    if (now.usage && now.usage.at !== seen.at(-1)?.usage.at) {
      const oldest = Date.parse(now.usage.at) - KEPT * 1000;
      seen = [...seen, now].filter((one) => Date.parse(one.usage.at) >= oldest);
      sessionStorage.setItem(key, JSON.stringify(seen));
      redraw();
      total(now.usage);
    }
    tell(now);
  } catch (error) {
    note.textContent = `${error.message}: what is shown is old.`;
  }
}

function makeAll() {
  for (const name of Object.keys(CHARTS)) make(name);
}

makeAll();
if (seen.length) total(seen.at(-1).usage);
new ResizeObserver(() => {
  for (const name of Object.keys(plots)) {
    plots[name].setSize({ width: document.getElementById(`chart-${name}`).clientWidth, height: 180 });
  }
}).observe(root);
new MutationObserver(makeAll).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
document.addEventListener("visibilitychange", look);
look();
setInterval(look, EVERY);
