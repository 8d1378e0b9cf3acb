// Charts of what a workload or a host uses: what the server has kept of the last day, and what comes.
//
// A sample is {at (seconds), cpus, memory, read, written, received, sent}; null is unknown.

import { amount } from "./format.js";
import { ask } from "./streams.js";
import uPlot from "./vendor/uplot.js";

const NOW_EVERY = 2_000; // milliseconds between questions; hosts measure more rarely
const HISTORY_EVERY = 60_000;
const PERIODS = { quarter: 15 * 60, hour: 60 * 60, day: 24 * 60 * 60 }; // seconds
const LIVE_KEPT = PERIODS.quarter;
const COLOURS = { light: ["#2563c9", "#c2410c"], dark: ["#8db4f5", "#fb923c"] };
const NAMES = { at: "at", cpus: "cpus", memory: "memory", read: "disk_read", written: "disk_written", received: "network_received", sent: "network_sent" };
const UNKNOWN = Object.fromEntries(Object.keys(NAMES).map((name) => [name, null]));

const root = document.getElementById("charts");
const note = document.getElementById("charts-note");
const cpus = Number(root.dataset.cpus) || 1; // that 100 % are
const second = (value) => `${amount(value)}/s`;

const CHARTS = {
  cpu: { series: [["CPU", (one) => (one.cpus === null ? null : (100 * one.cpus) / cpus)]], show: (value) => `${round(value)} %`, least: 5 },
  memory: { series: [["Memory", (one) => one.memory]], show: amount, least: 2 ** 20, binary: true },
  disk: { series: [["Read", (one) => one.read], ["Written", (one) => one.written]], show: second, least: 1024, binary: true },
  network: { series: [["Received", (one) => one.received], ["Sent", (one) => one.sent]], show: second, least: 1024, binary: true },
};

let period = root.querySelector("[data-period][aria-pressed=true]").dataset.period;
let history = []; // samples that the server has kept
let step = 60; // seconds between them
let live = []; // samples since the page was opened
let before = null; // the measurement before
let told = null; // what was answered last
let shown = []; // what the charts show
const plots = {};

function round(value) {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, "");
}

function seconds(text) {
  return Date.parse(text) / 1000;
}

// ---- what is known

/** A sample of two measurements: counters become rates, unknown where the workload began anew. */
function sample(usage, earlier) {
  const passed = earlier ? seconds(usage.at) - seconds(earlier.at) : 0;
  const rate = (name) => {
    const grown = earlier ? usage[name] - earlier[name] : -1;
    return passed > 0 && grown >= 0 ? grown / passed : null;
  };
  return {
    at: seconds(usage.at),
    cpus: usage.cpus ?? null,
    memory: usage.memory,
    read: rate("disk_read"),
    written: rate("disk_written"),
    received: rate("network_received"),
    sent: rate("network_sent"),
  };
}

function samplesOf(answer) {
  return answer.at.map((at, place) =>
    Object.fromEntries(Object.entries(NAMES).map(([name, field]) => [name, name === "at" ? seconds(at) : answer[field][place]])),
  );
}

/** History until what was seen here begins; a line is broken where nothing was measured. */
function known() {
  const end = Date.now() / 1000;
  const begun = live[0]?.at ?? Infinity;
  const past = history.filter((one) => one.at < begun);
  const all = [...past, ...live].filter((one) => one.at >= end - PERIODS[period]);
  return all.flatMap((one, place) => {
    const gap = place ? one.at - all[place - 1].at : 0;
    return gap > 2.5 * step ? [{ ...UNKNOWN, at: one.at - gap / 2 }, one] : [one];
  });
}

// ---- how it is drawn

function dark() {
  return document.documentElement.dataset.bsTheme === "dark";
}

function binarySplits(_plot, _axis, low, high) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(Math.max(high, 1)) / Math.log(1024)));
  const rough = (high - low) / unit / 3;
  const steps = [1, 2, 4, 5, 10, 20, 25, 50, 100, 128, 200, 256, 512];
  const size = rough <= 0.5 ? unit / 2 : (steps.find((one) => one >= rough) ?? 1024) * unit;
  return Array.from({ length: Math.floor(high / size) + 1 }, (_, at) => at * size);
}

function make(name) {
  const chart = CHARTS[name];
  const element = document.getElementById(`chart-${name}`);
  const colours = COLOURS[dark() ? "dark" : "light"];
  const lines = dark() ? "#2b3648" : "#e4e8ee";
  const axis = { stroke: dark() ? "#a9b4c6" : "#59667a", grid: { stroke: lines, width: 1 }, ticks: { stroke: lines, width: 1 }, font: "11px sans-serif" };
  const options = {
    width: element.clientWidth,
    height: 180,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, sync: { key: "usage" }, points: { size: 7 } },
    scales: {
      x: { time: true, range },
      y: { range: (_plot, _low, high) => [0, Math.max(chart.least, (high ?? 0) * 1.15)] },
    },
    axes: [
      { ...axis, space: 70, size: 32, values: [[60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
      { ...axis, size: 74, values: (_plot, values) => values.map(chart.show), ...(chart.binary ? { splits: binarySplits } : {}) },
    ],
    series: [
      {},
      ...chart.series.map(([label], index) => ({
        label,
        stroke: colours[index],
        fill: chart.series.length === 1 ? `${colours[index]}22` : undefined,
        width: 2,
        dash: index ? [6, 3] : undefined,
        points: { show: (_plot, _series, first, last) => last - first < 30, size: 4 },
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
  const end = Math.max(Date.now() / 1000, shown.at(-1)?.at ?? 0);
  return [end - PERIODS[period], end];
}

function values(name) {
  return [shown.map((one) => one.at), ...CHARTS[name].series.map(([, value]) => shown.map(value))];
}

/** What the colours stand for, with the values under the pointer, or the latest. */
function legend(name, place) {
  const chart = CHARTS[name];
  const at = place ?? shown.length - 1;
  const colours = COLOURS[dark() ? "dark" : "light"];
  const entries = chart.series.map(([label, value], index) => {
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
    const here = shown[at] ? value(shown[at]) : null;
    entry.append(swatch, here === null ? label : `${label} ${chart.show(here)}`);
    return entry;
  });
  if (place !== null && place !== undefined && shown[place]) {
    const time = document.createElement("span");
    time.textContent = new Date(shown[place].at * 1000).toLocaleTimeString();
    entries.push(time);
  }
  document.getElementById(`chart-${name}-legend`).replaceChildren(...entries);
  const latest = chart.series.map(([, value]) => shown.map(value).findLast((one) => one !== null));
  const readable = latest.filter((one) => one !== undefined).map(chart.show).join(" · ");
  document.getElementById(`chart-${name}-now`).textContent = readable || "–";
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
  shown = known();
  for (const name of Object.keys(CHARTS)) {
    plots[name].setData(values(name));
    legend(name, null);
  }
  tell();
}

function tell() {
  const every = step >= 120 ? `${step / 60} minutes` : "a minute";
  const kept = `Averages over ${every}, kept for ${period === "day" ? "a day" : "an hour"}.`;
  if (told && !told.usage) {
    note.textContent = told.state === "running" ? "Its host has not measured it yet." : `It is ${told.state}: nothing is used now. ${history.length ? kept : ""}`;
  } else if (live.length) {
    note.textContent = `Since ${new Date(live[0].at * 1000).toLocaleTimeString()} as it is measured${history.length ? `; before that: ${kept.toLowerCase()}` : "."}`;
  } else note.textContent = history.length ? kept : "Nothing was measured in this time. The first averages come after a minute.";
}

// ---- what comes

async function lookNow() {
  if (document.hidden || !root.dataset.now) return;
  try {
    told = await ask(root.dataset.now);
  } catch (error) {
    note.textContent = `${error.message}: what is shown is old.`;
    return;
  }
  if (!told.usage || told.usage.at === before?.at) return tell();
  const one = sample(told.usage, before);
  // Alone it has no rates: where there is a history, that goes on until the next.
  if (before || !history.length) live = [...live, one].filter((each) => each.at >= one.at - LIVE_KEPT);
  before = told.usage;
  redraw();
  total(told.usage);
}

async function lookBack() {
  if (document.hidden) return;
  const wanted = period;
  try {
    const answer = await ask(`${root.dataset.history}?period=${wanted}`);
    if (wanted !== period) return;
    history = samplesOf(answer);
    step = answer.seconds;
    redraw();
  } catch (error) {
    note.textContent = `${error.message}: what is shown is old.`;
  }
}

function makeAll() {
  shown = known();
  for (const name of Object.keys(CHARTS)) make(name);
}

function resize() {
  for (const [name, plot] of Object.entries(plots)) {
    plot.setSize({ width: document.getElementById(`chart-${name}`).clientWidth, height: 180 });
  }
}

for (const button of root.querySelectorAll("[data-period]")) {
  button.addEventListener("click", () => {
    period = button.dataset.period;
    for (const each of root.querySelectorAll("[data-period]")) each.setAttribute("aria-pressed", String(each === button));
    history = [];
    redraw();
    lookBack();
  });
}

makeAll();
new ResizeObserver(resize).observe(root);
new MutationObserver(makeAll).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
document.addEventListener("visibilitychange", () => lookBack().then(lookNow));
lookBack().then(lookNow);
setInterval(lookNow, NOW_EVERY);
setInterval(lookBack, HISTORY_EVERY);
