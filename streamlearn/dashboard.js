// The live page: a past that the server tells once, and once a second what is new.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const read = (id) => JSON.parse($(id).textContent);
  const setup = read("setup");
  const DASH = "\u2013", QUIET = 5000, MOST_SPARK = 90;
  const figures = new Map(); // name -> {view, lines, alarms, x, y, ticks, form}
  let past = []; // a table of columns for each tier
  let sparks = {};
  let now = null; // the last message
  let tier = 0, heard = 0, source = null, ended = false, changed = true;
  let alarmsShown = "", deadShown = "";

  // -- words ---------------------------------------------------------------------------------------

  const known = (v) => typeof v === "number" && Number.isFinite(v);
  const whole = (v) => (known(v) ? Math.round(v).toLocaleString("en") : DASH);
  function plain(v) {
    if (!known(v)) return DASH;
    const size = Math.abs(v);
    if (v === 0) return "0";
    if (size >= 1e9 || size < 1e-4) return v.toExponential(2);
    const digits = Math.max(0, Math.min(4, 3 - Math.floor(Math.log10(size))));
    return v.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }
  const percent = (v) => (known(v) ? (100 * v).toFixed(1) + "\u00a0%" : DASH);
  function duration(s) {
    if (!known(s)) return DASH;
    if (s < 1) return "0 s";
    for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      if (s >= 2 * length) return `${Math.floor(s / length)} ${unit}`;
    }
    return `${Math.round(s)} s`;
  }
  const ago = (s) => (s < 2 ? "just now" : `${duration(s)} ago`);
  const size = (b) => (b >= 1 << 20 ? `${plain(b / (1 << 20))} MiB` : b >= 1024 ? `${plain(b / 1024)} KiB` : `${whole(b)} bytes`);
  const metricOf = (name) => setup.metrics[name] || { title: name.replaceAll("_", " "), percent: false, up: null };
  const metricText = (name, v) => (metricOf(name).percent ? percent(v) : plain(v));
  function told(v) {
    if (typeof v === "number") return plain(v);
    if (v === null || v === undefined) return DASH;
    if (Array.isArray(v)) return v.slice(0, 5).map(told).join(", ");
    if (typeof v === "object") return Object.entries(v).slice(0, 5).map(([k, x]) => `${k} ${told(x)}`).join(", ");
    return String(v);
  }

  function make(tag, text, kind) {
    const found = document.createElement(tag);
    if (text !== undefined) found.textContent = text;
    if (kind) found.className = kind;
    return found;
  }
  function say(element, text) { if (element.textContent !== text) element.textContent = text; }

  // -- the past ------------------------------------------------------------------------------------

  function add(values, t) {
    setup.tiers.forEach(({ step, points }, k) => {
      const table = past[k];
      const last = table.t.at(-1) ?? -Infinity;
      if (last <= t && t < last + step - 0.5) return;
      table.t.push(t);
      for (const name of Object.keys(table)) if (name !== "t") table[name].push(values[name] ?? null);
      if (table.t.length > points) for (const name of Object.keys(table)) table[name].shift();
    });
  }

  // Events a second: over five points where they are seconds, so that it does not flicker.
  function rates(table, k) {
    const reach = k === 0 ? 5 : 1;
    return table.t.map((t, i) => {
      const j = Math.max(0, i - reach);
      const [seconds, events] = [t - table.t[j], table.events[i] - table.events[j]];
      return i > j && seconds > 0 && events >= 0 ? events / seconds : null;
    });
  }

  // -- figures -------------------------------------------------------------------------------------

  const STEPS = [5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600];

  async function embedded() {
    for (const item of read("plots")) {
      for (const view of await Figures.embed(item)) {
        const models = [...view.model.references()];
        const named = (name) => models.find((m) => m.name === name);
        if (!named("lines")) continue; // what bokeh lays over a page to say things
        figures.set(item.target_id.slice(5), {
          view, lines: named("lines"), alarms: named("alarms"), form: named("form"),
          x: view.model.x_range, y: view.model.y_range, ticks: named("ago"), axis: named("time"),
        });
      }
    }
    repaint();
  }
  const repaint = () => figures.forEach(({ view }) => Figures.paint(view, false));

  function span(series, zero) {
    let low = Infinity, high = -Infinity;
    for (const values of series) for (const v of values) if (known(v)) { low = Math.min(low, v); high = Math.max(high, v); }
    if (low > high) return [0, 1];
    if (zero) return [0, high > 0 ? 1.12 * high : 1];
    const room = high > low ? 0.08 * (high - low) : 0.05 * Math.abs(high) || 0.5;
    return [low - room, high + 1.6 * room];
  }

  function draw(name, table, columns, rise, zero) {
    const figure = figures.get(name);
    if (!figure || !table.t.length) return;
    const t = table.t.at(-1);
    const [x, most] = [table.t.map((s) => s - t), setup.tiers[tier].step * setup.tiers[tier].points];
    const length = Math.max(Math.min(most, -x[0]), 20);
    const [low, high] = span(Object.values(columns), zero);
    const gaps = (values) => values.map((v) => (known(v) ? v : NaN));
    const data = { x, ago: x.map((s) => ago(-s)) };
    for (const [key, values] of Object.entries(columns)) data[key] = gaps(values);
    if ("best" in columns === false) data.zero = x.map(() => 0);
    figure.lines.data = data;
    figure.alarms.data = { x: rise.map((s) => s - t), low: rise.map(() => low), high: rise.map(() => high - 0.045 * (high - low)) };
    figure.x.setv({ start: -length, end: length * 0.012 });
    figure.y.setv({ start: low, end: high });
    const step = STEPS.find((s) => length / s <= (Figures.phone.matches ? 4 : 6)) || 21600;
    const ticks = [];
    for (let s = 0; s <= length; s += step) ticks.push(-s);
    figure.ticks.ticks = ticks;
    figure.axis.major_label_overrides = new Map(ticks.map((s) => [s, s === 0 ? "now" : duration(-s)]));
  }

  function drawAll() {
    if (document.hidden || !figures.size || !past.length || !now.shown) return;
    const table = past[tier];
    const rise = table.t.filter((_, i) => i > 0 && table.alarms[i] > table.alarms[i - 1]);
    const name = metricName(now.lineages[now.shown]);
    const up = metricOf(name).up;
    const best = table.t.map((_, i) => {
      const rivals = [table.baseline_0[i], table.baseline_1[i]].filter(known);
      if (!rivals.length) return table.metric[i];
      return up === false ? Math.min(...rivals) : Math.max(...rivals);
    });
    const form = metricOf(name).percent ? "0%" : "0,0.[000]";
    if (figures.get("metric")?.form.format !== form) figures.get("metric").form.format = form;
    draw("metric", table, { model: table.metric, "baseline 0": table.baseline_0, "baseline 1": table.baseline_1, best }, rise, false);
    draw("rate", table, { rate: rates(table, tier) }, [], true);
    draw("behind", table, { behind: table.behind }, [], true);
    draw("backlog", table, { backlog: table.backlog }, [], true);
  }

  // -- numbers -------------------------------------------------------------------------------------

  const metricName = (one) => one?.metric || "";

  function tile(name, value, more = "", raised = false) {
    const box = $(`tile-${name}`);
    box.hidden = value === null;
    if (value === null) return;
    say(box.querySelector("dd"), value);
    box.classList.toggle("long", value.length > 11);
    box.querySelector("dd").title = value;
    say(box.querySelector("p"), more);
    box.classList.toggle("raised", raised);
  }

  function tiles(one) {
    const v = one.values;
    const t = now.health.t;
    const rate = rates(past[0], 0).at(-1);
    const alarms = now.detail.alarms;
    const latest = alarms.at(-1);
    const fresh = latest && latest.seen !== null && t - latest.seen < 60;
    tile("events", whole(v.events));
    tile("rate", known(rate) ? (rate < 10 ? plain(rate) : whole(rate)) : DASH);
    tile("behind", v.behind === null && !Object.keys(now.detail.lag).length ? null : whole(v.behind),
      known(v.seconds_behind) ? `${duration(v.seconds_behind)} of event time` : "");
    const late = one.delay && known(one.delay.p50) ? `half within ${one.delay_unit === "s" ? duration(one.delay.p50) : `${whole(one.delay.p50)} events`}` : "";
    tile("backlog", known(v.backlog) ? whole(v.backlog) : null, late);
    tile("alarms", whole(v.alarms), latest ? (latest.seen === null ? `at event ${whole(latest.event)}` : ago(t - latest.seen)) : "", Boolean(fresh));
    const share = v.dead_letters / (v.events + v.dead_letters);
    tile("dead", whole(v.dead_letters), v.dead_letters ? `${share < 0.001 ? "< 0.1\u00a0%" : percent(share)} of records` : "", share > 0.05 && v.dead_letters > 9);
    const kept = one.checkpoint;
    tile("checkpoint", kept ? ago(kept.age) : null, kept && known(kept.bytes) ? size(kept.bytes) : "");
    const version = one.version !== null ? `Version ${one.version}` : null;
    tile("model", version || one.model, version ? one.model || "" : known(one.state_bytes) ? `${size(one.state_bytes)} of state` : "");
    say($("kicker"), one.stages.length ? one.stages.join(" \u2192 ") : "streamlearn");
  }

  function headline(one) {
    const name = metricName(one), about = metricOf(name), own = one.values.metric;
    say($("metric-name"), name ? `${about.title}, last ${known(one.window) ? `${whole(one.window)} ` : ""}events` : "Metric");
    say($("metric-value"), metricText(name, own));
    const rivals = Object.entries(one.baselines || {}).slice(0, 2);
    const best = rivals.filter(([, v]) => known(v)).sort((a, b) => (about.up === false ? a[1] - b[1] : b[1] - a[1]))[0];
    const verdict = $("metric-verdict");
    if (!best || !known(own)) { say(verdict, rivals.length ? "" : "\u00a0"); }
    else {
      const [who, v] = best;
      const ahead = about.up === false ? v - own : own - v;
      const gap = about.percent ? `${(100 * Math.abs(ahead)).toFixed(1)} points` : plain(Math.abs(ahead));
      const word = ahead >= 0 ? "better" : "worse";
      say(verdict, `${gap} ${word} than ${baselineName(who)}`);
      verdict.className = ahead > 0 ? "good" : "bad";
    }
    const entries = [["this model", "s0", "", own], ...rivals.map(([who, v], i) => [baselineName(who), `s${i + 1}`, i ? "dotted" : "dashed", v])];
    const key = $("metric-key");
    const text = JSON.stringify(entries);
    if (key.dataset.text === text) return;
    key.dataset.text = text;
    key.replaceChildren(...entries.map(([who, role, shape, v]) => {
      const [entry, mark] = [make("li"), make("i", "", shape)];
      mark.style.borderColor = `var(--${role})`;
      entry.append(mark, `${who} ${metricText(name, v)}`);
      return entry;
    }), ...(one.values.alarms ? [(() => { const e = make("li"); e.append(make("i", "", "alarm"), "alarm"); return e; })()] : []));
  }
  const baselineName = (name) => setup.baselines[name] || name.replaceAll("_", " ");

  // -- alarms, features, dead letters --------------------------------------------------------------

  function finding(found) {
    const out = [];
    if (!found) return out;
    const sentence = make("p", "", "why");
    const what = [found.detector, found.watches ? `on ${found.watches}` : ""].filter(Boolean).join(" ");
    const compared = known(found.statistic) ? `: ${plain(found.statistic)}${known(found.limit) ? `, limit ${plain(found.limit)}` : ""}` : "";
    sentence.append(what + compared);
    if (found.action && found.action !== "none") sentence.append(what + compared ? " \u2192 " : "", make("span", String(found.action), "action"));
    if (sentence.textContent) out.push(sentence);
    const moved = Array.isArray(found.features) ? found.features : [];
    if (moved.length) {
      const list = make("ul", undefined, "moved");
      for (const one of moved.slice(0, 8)) {
        const entry = make("li");
        entry.append(make("b", String(one?.name ?? one)));
        if (one && one.from !== undefined && one.to !== undefined) entry.append(` ${told(one.from)} \u2192 ${told(one.to)}`);
        list.append(entry);
      }
      if (moved.length > 8) list.append(make("li", `and ${moved.length - 8} more`));
      out.push(list);
    }
    return out;
  }

  function showAlarms() {
    const alarms = now.detail.alarms;
    const text = now.shown + JSON.stringify(alarms);
    const list = $("alarms").querySelector("ol");
    if (text !== alarmsShown) {
      const before = Number(list.dataset.newest ?? Infinity), same = list.dataset.of === now.shown;
      list.replaceChildren(...alarms.toReversed().map((record) => {
        const kind = record.kind || "drift";
        const item = make("li", undefined, kind);
        if (same && record.alert > before) item.classList.add("fresh");
        const head = make("div", undefined, "what");
        const title = kind[0].toUpperCase() + kind.slice(1);
        head.append(make("span", known(record.event) ? `${title} at event ${whole(record.event)}` : title));
        const when = make("span", "", "when");
        if (record.seen !== null) when.dataset.seen = record.seen;
        head.append(when);
        item.append(head, ...(record.findings || []).flatMap(finding));
        return item;
      }));
      list.dataset.newest = alarms.at(-1)?.alert ?? -1;
      list.dataset.of = now.shown;
      alarmsShown = text;
    }
    for (const when of list.querySelectorAll("[data-seen]")) say(when, ago(now.health.t - when.dataset.seen));
    const none = $("alarms").querySelector(".none");
    none.hidden = alarms.length > 0;
    const count = now.lineages[now.shown].values.alarms;
    say(none, count ? `${whole(count)} so far.` : "None so far.");
  }

  // Rows of bars: a statistic as a part of its limit; features first, then detectors on one number.
  function standings() {
    const rows = [], words = [], named = now.detail.drift.map((one) => `${one.detector} on ${one.watches}`);
    for (const [k, one] of now.detail.drift.entries()) {
      const alone = named.filter((name) => name === named[k]).length === 1 || one.stage === one.detector;
      const who = alone ? named[k] : `${named[k]}, ${one.stage}`;
      const features = (one.features || []).filter((f) => known(f.statistic));
      for (const f of features) {
        const limit = f.limit ?? one.limit;
        if (known(limit) && limit > 0) rows.push({ name: f.name, who, ratio: f.statistic / limit, text: `${plain(f.statistic)} of ${plain(limit)}` });
      }
      if (features.length) continue;
      if (known(one.statistic) && known(one.limit) && one.limit > 0) rows.push({ name: who, who, ratio: one.statistic / one.limit, text: `${plain(one.statistic)} of ${plain(one.limit)}` });
      else {
        const rest = Object.entries(one).filter(([k, v]) => known(v) && !["stage", "detector", "watches"].includes(k));
        if (rest.length) words.push([who, rest.slice(0, 4).map(([k, v]) => `${k.replaceAll("_", " ")} ${Number.isInteger(v) ? whole(v) : plain(v)}`).join(", ")]);
      }
    }
    rows.sort((a, b) => b.ratio - a.ratio);
    return [rows, words];
  }

  function showFeatures() {
    const [rows, words] = standings();
    const card = $("features");
    card.hidden = !rows.length && !words.length;
    if (card.hidden) return;
    card.querySelector(".scores").replaceChildren(...rows.slice(0, 10).map(({ name, who, ratio, text }) => {
      const row = make("div", undefined, ratio > 1 ? "score moving" : "score");
      const track = make("span", undefined, "track"), bar = make("span", undefined, "bar");
      bar.style.display = "block";
      bar.style.width = `${Math.max(0, Math.min(1, ratio / 1.5)) * 100}%`;
      track.append(bar);
      row.title = `${who}: ${text}`;
      row.append(make("span", name, "who"), track, make("span", ratio.toFixed(2), "number"));
      return row;
    }));
    const beyond = rows.filter(({ ratio }) => ratio > 1).length;
    say(card.querySelector(".caption"), rows.length ? `${beyond ? whole(beyond) : "None"} of ${rows.length} beyond the limit, the dashed line.` : "");
    card.querySelector(".words").replaceChildren(...words.map(([who, text]) => {
      const item = make("li");
      item.append(make("b", who), ` ${text}`);
      return item;
    }));
  }

  function showDead() {
    const { letters, reasons } = now.detail;
    const count = now.lineages[now.shown].values.dead_letters;
    const none = $("dead").querySelector(".none");
    none.hidden = letters.length > 0;
    say(none, count ? `${whole(count)} so far.` : "None so far.");
    const text = JSON.stringify([letters, reasons]);
    if (text === deadShown) return;
    deadShown = text;
    const most = Object.entries(reasons).sort((a, b) => b[1] - a[1]).slice(0, 4);
    $("dead").querySelector("ul").replaceChildren(...most.map(([reason, n]) => {
      const item = make("li");
      item.append(make("b", `${whole(n)} \u00d7 `), reason);
      return item;
    }));
    $("dead").querySelector("ol").replaceChildren(...letters.toReversed().map((letter) => {
      const item = make("li"), place = typeof letter.position === "number" ? whole(letter.position) : told(letter.position);
      item.append(make("div", String(letter.reason), "what"), make("span", `${letter.partition}, record ${place}`, "when"));
      return item;
    }));
  }

  // -- several -------------------------------------------------------------------------------------

  const natural = new Intl.Collator("en", { numeric: true });
  const lastEvents = new Map(); // name -> [[t, events], …] of the last seconds

  function rateOf(name, t, events) {
    const seen = lastEvents.get(name) || [];
    if (seen.length && events < seen.at(-1)[1]) seen.length = 0;
    seen.push([t, events]);
    if (seen.length > 6) seen.shift();
    lastEvents.set(name, seen);
    const [[t0, e0]] = seen;
    return t > t0 ? (events - e0) / (t - t0) : null;
  }

  function spark(values) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 24");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const [low, high] = span([values], false);
    let path = "", pen = false;
    values.forEach((v, i) => {
      if (!known(v)) { pen = false; return; }
      const x = (100 * i) / Math.max(1, values.length - 1), y = 23 - (22 * (v - low)) / (high - low || 1);
      path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = true;
    });
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("d", path);
    svg.append(line);
    return svg;
  }

  function showLineages() {
    const names = Object.keys(now.lineages).sort(natural.compare);
    $("lineages").hidden = names.length < 2;
    for (const name of lastEvents.keys()) if (!(name in now.lineages)) lastEvents.delete(name);
    if (names.length < 2) return;
    say($("lineages-metric"), metricOf(metricName(now.lineages[names[0]])).title);
    const focused = document.activeElement?.closest?.("#lineages a")?.textContent;
    $("lineages").querySelector("tbody").replaceChildren(...names.map((name) => {
      const one = now.lineages[name], v = one.values, row = make("tr");
      if (name === now.shown) row.setAttribute("aria-current", "true");
      const [head, link, metric] = [make("th"), make("a", name), make("td")];
      link.href = `#${encodeURIComponent(name)}`;
      head.scope = "row";
      head.append(link);
      metric.append(metricText(metricName(one), v.metric), spark((sparks[name] || { metric: [] }).metric));
      const rate = rateOf(name, now.health.t, v.events);
      row.append(head, metric, make("td", whole(v.events)), make("td", known(rate) ? whole(rate) : DASH), make("td", whole(v.behind)), make("td", whole(v.alarms), v.alarms ? "raised" : ""), make("td", whole(v.dead_letters)));
      row.addEventListener("click", () => { location.hash = encodeURIComponent(name); });
      return row;
    }));
    if (focused) [...$("lineages").querySelectorAll("a")].find((a) => a.textContent === focused)?.focus();
  }

  function sparksOn() {
    for (const name of Object.keys(sparks)) if (!(name in now.lineages)) delete sparks[name];
    const t = now.health.t;
    for (const [name, one] of Object.entries(now.lineages)) {
      const kept = (sparks[name] ||= { t: [], metric: [] });
      const step = kept.t.length > 1 ? Math.min(10, kept.t.at(-1) - kept.t.at(-2)) : 1;
      if (kept.t.length && t < kept.t.at(-1) + step - 0.5) continue;
      kept.t.push(t); kept.metric.push(one.values.metric);
      if (kept.t.length > MOST_SPARK) { kept.t.shift(); kept.metric.shift(); }
    }
  }

  // -- all of it -----------------------------------------------------------------------------------

  function layout() {
    const one = now.lineages[now.shown];
    const lag = one.values.behind !== null || Object.keys(now.detail.lag).length > 0;
    $("behind").hidden = !lag;
    $("backlog").hidden = !known(one.values.backlog);
    const small = ["rate", "behind", "backlog"].filter((name) => !$(name).hidden);
    for (const name of small) {
      $(name).classList.toggle("alone", small.length === 1);
      $(name).classList.toggle("half", small.length === 2);
    }
    $("dead").classList.toggle("alone", $("features").hidden);
  }

  function state() {
    const box = $("state");
    const lost = ended || Date.now() - heard > QUIET;
    document.body.classList.toggle("lost", lost && heard > 0);
    if (lost) {
      say(box, !heard ? "Connecting \u2026" : ended ? "The run has ended" : `No word for ${duration((Date.now() - heard) / 1000)}; trying again`);
      box.className = "bad";
      return;
    }
    const { live, ready, why } = now.health;
    const text = ready ? "Live" : why.length ? why.slice(0, 3).join("; ") : "Not ready";
    say(box, live ? text : `Stalled: ${text}`);
    box.className = live ? (ready ? "good" : "mixed") : "bad";
  }

  function show() {
    state();
    say($("title"), now.title + (Object.keys(now.lineages).length > 1 ? ` \u00b7 ${now.shown}` : ""));
    const one = now.lineages[now.shown];
    if (!one || !past.length) return;
    const latest = now.detail.alarms.at(-1);
    const fresh = latest && latest.seen !== null && now.health.t - latest.seen < 30;
    const title = `${fresh ? "\u25bc alarm \u00b7 " : ""}${now.title} \u00b7 streamlearn`;
    if (document.title !== title) document.title = title;
    if (document.hidden) return;
    showLineages(); tiles(one); headline(one); showAlarms(); showFeatures(); showDead(); layout(); drawAll();
    document.body.dataset.number = now.number;
  }

  function take(message, first) {
    heard = Date.now(); ended = false;
    if (message.build !== setup.build) { location.reload(); return; }
    if (!first && message.shown) message.detail.alarms ||= now?.detail.alarms || [];
    now = message;
    const one = now.lineages[now.shown];
    if (first) { past = message.history; sparks = message.sparks; delete message.history; delete message.sparks; }
    else if (one && past.length) { add(one.values, now.health.t); sparksOn(); }
    show();
  }

  const wanted = () => { try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; } };

  async function again() {
    const found = await fetch("/", { cache: "no-store" }).catch(() => null);
    if (found && found.status === 401) location.reload();
    else open();
  }

  function open() {
    source?.close();
    const opened = (source = new EventSource(`/events?show=${encodeURIComponent(wanted())}`));
    opened.addEventListener("whole", (event) => take(JSON.parse(event.data), true));
    opened.addEventListener("step", (event) => take(JSON.parse(event.data), false));
    opened.addEventListener("end", () => { ended = true; state(); });
    opened.addEventListener("error", () => {
      if (opened === source && opened.readyState === EventSource.CLOSED) setTimeout(again, 3000);
    });
  }

  for (const button of document.querySelectorAll(".choice button")) {
    button.addEventListener("click", () => {
      tier = Number(button.dataset.tier);
      document.querySelectorAll(".choice button").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
      if (now) drawAll();
    });
  }
  addEventListener("hashchange", open);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && now) show(); });
  setInterval(() => { if (now || heard === 0) state(); }, 1000);
  Figures.whenChanged(() => { repaint(); if (now) drawAll(); });
  embedded().then(() => { document.body.dataset.ready = "yes"; if (now) drawAll(); });
  open();
})();
