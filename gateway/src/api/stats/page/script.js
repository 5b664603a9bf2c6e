"use strict";
const HOUR = 3600e3, DAY = 24 * HOUR;
// How the series is told in each period, and how many points of it make one column.
const PERIODS = {
  day: { hours: 24, name: "hour", title: "the last 24 hours" },
  week: { days: 7, name: "day", title: "the last 7 days" },
  month: { days: 30, name: "day", title: "the last 30 days" },
  quarter: { days: 90, name: "day", title: "the last 90 days" },
  year: { days: 364, columns: 7, name: "week", title: "the last 52 weeks" },
};
const LISTS = [
  ["referrer", "Referrers", "Direct, or not told"],
  ["country", "Countries", "Not known"],
  ["device", "Devices", "Not known"],
  ["browser", "Browsers", "Not known"],
  ["os", "Operating systems", "Not known"],
  ["language", "Languages", "Not told"],
];
const DEVICES = { desktop: "Desktop", mobile: "Phone", tablet: "Tablet", console: "Game console", tv: "Television" };
const ROWS = 8;
const slug = location.pathname.split("/").pop();
const find = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
let told = null;
let asked = 0;

// What the browser does not let us keep is kept for as long as the page is there.
let token = null;
try { token = sessionStorage.getItem("waypost-token"); } catch { /* not allowed */ }
function keep(value) {
  token = value;
  try {
    if (value) sessionStorage.setItem("waypost-token", value);
    else sessionStorage.removeItem("waypost-token");
  } catch { /* not allowed */ }
}

function query(period) {
  const now = Date.now();
  const wanted = new URLSearchParams({ by: LISTS.map((list) => list[0]).join() });
  if (period.hours) {
    wanted.set("interval", "hour");
    wanted.set("from", new Date(now - (period.hours - 1) * HOUR).toISOString());
  } else {
    wanted.set("from", new Date(now - (period.days - 1) * DAY).toISOString().slice(0, 10));
  }
  return wanted;
}

function ask(wanted) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  return fetch("/api/v1/links/" + slug + "/stats?" + wanted, { headers, cache: "no-store" });
}

async function load() {
  const turn = ++asked;
  const period = PERIODS[find("period").value];
  find("report").setAttribute("aria-busy", "true");
  let problem = null;
  try {
    const response = await ask(query(period));
    const answer = await response.json();
    if (turn !== asked) return;
    if (response.ok) {
      told = { period, answer };
      show();
    } else {
      problem = answer;
    }
  } catch {
    if (turn !== asked) return;
    problem = { detail: "The server cannot be reached. Try again in a moment." };
  }
  find("report").setAttribute("aria-busy", "false");
  explain(problem);
}

function explain(problem) {
  const isRefused = problem && [401, 403, 404].includes(problem.status);
  // Who has sent no token yet is asked for one, and has done nothing wrong.
  const isSilent = !problem || problem.code === "token_missing";
  find("problem").hidden = isSilent;
  const isYours = problem?.status === 404 && !token ? " If it is yours, show your token." : "";
  find("problem").textContent = isSilent ? "" : (problem.detail || problem.title) + isYours;
  const wasHidden = find("access").hidden;
  find("access").hidden = !isRefused;
  if (isRefused) {
    if (problem.status !== 404) keep(null);
    find("report").hidden = true;
    find("counted").textContent = "";
    if (wasHidden) find("token").focus();
  } else if (problem && !told) {
    find("report").hidden = true;
  }
}

function make(name, attributes, ...children) {
  const isDrawn = ["svg", "g", "rect", "line", "text", "title"].includes(name);
  const element = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const formats = {};
function text(at, options) {
  const key = JSON.stringify(options);
  formats[key] ??= new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
  return formats[key].format(at);
}
const dayText = (at) => text(at, { day: "numeric", month: "short" });
const hourText = (at) => text(at, { hour: "2-digit", minute: "2-digit" });
function begin(at, period) {
  if (period.hours) return dayText(at) + ", " + hourText(at);
  return text(at, { weekday: "short", day: "numeric", month: "short", year: "numeric" });
}

function columns({ period, answer }) {
  const size = period.columns ?? 1;
  const all = [];
  for (const [at, point] of answer.series.entries()) {
    if (at % size === 0) all.push({ start: new Date(point.start), people: 0, bots: 0, visitors: null });
    const column = all.at(-1);
    column.people += point.clicks - point.bots;
    column.bots += point.bots;
    if (point.visitors !== undefined) column.visitors = (column.visitors ?? 0) + point.visitors;
  }
  return all;
}

function show() {
  const { period, answer } = told;
  const all = columns(told);
  find("report").hidden = false;
  find("people").textContent = number(answer.clicks - answer.bots);
  find("visitors").textContent = number(answer.visitorDays);
  find("bots").textContent = number(answer.bots);
  find("ever").textContent = number(answer.allTime.clicks);
  const isEmpty = answer.clicks === 0;
  find("none").hidden = !isEmpty;
  find("none").textContent = answer.allTime.clicks === 0 ? "Nobody has followed this link yet."
    : "Nobody has followed this link in " + period.title + ".";
  for (const id of ["chart", "legend", "points", "lists"]) find(id).hidden = isEmpty;
  draw();
  const rows = all.toReversed().map((column) => make("tr", {},
    make("th", { scope: "row" }, begin(column.start, period)),
    make("td", {}, number(column.people)),
    make("td", {}, number(column.bots)),
    make("td", {}, column.visitors === null ? "–" : number(column.visitors))));
  find("points").querySelector("tbody").replaceChildren(...rows);
  find("lists").replaceChildren(...LISTS.map((list) => listed(list, answer)));
  const days = [Date.parse(answer.days.from), Date.parse(answer.days.to) - 1].map(dayText);
  find("days").textContent = period.hours
    ? "Visitors and lists are known by the day alone: they are of all hours of " + [...new Set(days)].join(" to ") + "."
    : "";
  find("counted").textContent = answer.countedUpTo
    ? "Counted up to " + text(new Date(answer.countedUpTo), { dateStyle: "medium", timeStyle: "medium" })
      + " UTC. All hours and days are those of UTC."
    : "Nothing is counted yet.";
}

// A round number, of which at most four make the highest column.
function step(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most / 4, 1)));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n * 4 >= most);
}

function draw() {
  if (!told || find("chart").hidden) return;
  const all = columns(told);
  const { period } = told;
  const width = find("chart").clientWidth, height = 224;
  const most = Math.max(1, ...all.map((column) => column.people + column.bots));
  const unit = step(most);
  const top = Math.ceil(most / unit) * unit;
  const left = 10 + 8 * Math.max(1, number(top).length);
  const floor = height - 22;
  const y = (clicks) => floor - (clicks / top) * (floor - 8);
  const each = (width - left) / all.length;
  const gap = each > 6 ? 2 : each > 3 ? 1 : 0;
  const busiest = all.reduce((a, b) => (b.people + b.bots > a.people + a.bots ? b : a));
  const label = "Clicks by " + period.name + " in " + period.title + ". The most, "
    + number(busiest.people + busiest.bots) + ", in the " + period.name + " that began "
    + begin(busiest.start, period) + ". The table below has all of them.";
  const svg = make("svg", { role: "img", "aria-label": label, viewBox: "0 0 " + width + " " + height });
  for (let at = 0; at <= top; at += unit) {
    svg.append(make("line", { x1: left, x2: width, y1: y(at), y2: y(at) }),
      make("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, number(at)));
  }
  for (const [at, column] of all.entries()) {
    const x = left + at * each;
    const part = (kind, from, to) => make("rect", { class: kind, x: x + gap / 2, width: Math.max(each - gap, .5),
      y: y(to), height: y(from) - y(to) });
    const hint = begin(column.start, period) + ": " + number(column.people) + " of people, "
      + number(column.bots) + " of programs";
    svg.append(part("people", 0, column.people), part("bots", column.people, column.people + column.bots),
      make("rect", { class: "column", x, width: each, y: 0, height: floor }, make("title", {}, hint)));
  }
  const fit = Math.max(2, Math.floor((width - left) / 80));
  const every = Math.ceil(all.length / fit);
  for (let at = 0; at < all.length; at += every) {
    const x = left + (at + .5) * each;
    const anchor = x < left + 20 ? "start" : x > width - 24 ? "end" : "middle";
    const named = period.hours ? hourText(all[at].start) : dayText(all[at].start);
    svg.append(make("text", { x: anchor === "end" ? width : anchor === "start" ? left : x, y: height - 4,
      "text-anchor": anchor }, named));
  }
  find("chart").replaceChildren(svg);
}

function named(by, value) {
  if (by === "device") return DEVICES[value] ?? value;
  const type = { country: "region", language: "language" }[by];
  if (!type) return value;
  try {
    return new Intl.DisplayNames(["en"], { type }).of(value) ?? value;
  } catch {
    return value;
  }
}

function listed([by, title, unknown], answer) {
  const { values, other } = answer.breakdowns[by];
  const section = make("section", { "aria-label": title }, make("h2", {}, title));
  const sum = values.reduce((all, value) => all + value.clicks, other);
  if (sum === 0) {
    section.append(make("p", { class: "note" }, "Only programs have come."));
    return section;
  }
  const most = Math.max(other, ...values.map((value) => value.clicks));
  const row = (name, clicks) => {
    const bar = make("span", { class: "share" });
    bar.style.width = (100 * clicks) / most + "%";
    return make("tr", {}, make("th", { scope: "row" }, name, bar), make("td", {}, number(clicks)),
      make("td", {}, Math.round((100 * clicks) / sum) + " %"));
  };
  const rows = values.map((value) => row(value.value === null ? unknown : named(by, value.value), value.clicks));
  if (other > 0) rows.push(row("Others", other));
  const body = make("tbody", {}, ...rows);
  section.append(make("table", {}, make("thead", { class: "visually-hidden" }, make("tr", {},
    make("th", { scope: "col" }, title), make("th", { scope: "col" }, "Clicks"),
    make("th", { scope: "col" }, "Share"))), body));
  if (rows.length > ROWS + 1) {
    const hidden = rows.slice(ROWS);
    for (const line of hidden) line.hidden = true;
    const more = make("button", { type: "button", class: "quiet" }, "Show all " + rows.length);
    more.addEventListener("click", () => {
      for (const line of hidden) line.hidden = false;
      more.remove();
    });
    section.append(more);
  }
  if (by === "country" && values.every((value) => value.value === null)) {
    section.append(make("p", { class: "note" }, "Countries are known where this server is told of them."));
  }
  return section;
}

async function save() {
  const wanted = query(PERIODS[find("period").value]);
  wanted.delete("by");
  wanted.set("format", "csv");
  try {
    const response = await ask(wanted);
    if (!response.ok) return explain(await response.json());
    const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "");
    const url = URL.createObjectURL(await response.blob());
    make("a", { href: url, download: name ? name[1] : "clicks.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60e3);
  } catch {
    explain({ detail: "The server cannot be reached. Try again in a moment." });
  }
}

document.title = "Statistics of " + slug;
find("of").textContent = location.host + "/" + slug;
find("of").href = "/" + slug + "+";
find("period").addEventListener("change", load);
find("refresh").addEventListener("click", load);
find("save").addEventListener("click", save);
find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(find("token").value.trim());
  find("token").value = "";
  load();
});
let width = 0;
new ResizeObserver(([entry]) => {
  if (entry.contentRect.width === width) return;
  width = entry.contentRect.width;
  draw();
}).observe(find("chart"));
load();
