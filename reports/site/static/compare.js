// The compare page: which methods are shown, their paired differences, and their images class by class.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const chooser = document.getElementById("chooser"), baseline = document.getElementById("baseline");
const boxes = [...chooser.querySelectorAll('input[name="other"]')];
const ALPHA = 0.05;

const signed = (x) => (x == null ? "–" : (x >= 0 ? "+" : "−") + Math.abs(x).toFixed(2));
const p = (x) => (x == null ? "–" : x < 1e-4 ? "< 0.0001" : x < 0.1 ? x.toFixed(4) : x.toFixed(2));

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text != null) made.textContent = text; // never as HTML: names come from results of unknown origin
  Object.entries(attributes).forEach(([key, of]) => made.setAttribute(key, of));
  return made;
}

// The pair (a, b) of one table as a's accuracy minus b's; null where a table lacks one of them.
function pair(table, a, b) {
  const index = (id) => table.rows.findIndex((row) => row.id === id);
  const [i, j] = [index(a), index(b)];
  if (i < 0 || j < 0) return null;
  const found = table.pairs.find(([x, y]) => (x === i && y === j) || (x === j && y === i));
  if (!found) return null;
  const sign = found[0] === i ? 1 : -1;
  const [, , difference, low, high, raw, equivalent, visible, within] = found;
  const [from, to] = sign > 0 ? [low, high] : [high == null ? null : -high, low == null ? null : -low];
  return { table, a: table.rows[i], b: table.rows[j], difference: sign * difference, low: from, high: to, raw, equivalent, visible, within };
}

function holm(lines) {
  const tested = lines.filter((line) => line.raw != null).sort((x, y) => x.raw - y.raw);
  let running = 0;
  tested.forEach((line, place) => {
    running = Math.max(running, Math.min(1, (tested.length - place) * line.raw));
    line.holm = running;
  });
}

function verdict(line, name) {
  if (line.raw == null) return ["not tested: one set each", ""];
  if (line.holm < ALPHA) return [line.difference > 0 ? `${name} better` : `${data.names[line.b.id]} better`, line.difference > 0 ? "good" : "bad"];
  if (line.equivalent != null && line.equivalent < ALPHA) return [`equal within ${data.margin}`, ""];
  return ["not told apart", ""];
}

function table(first, others) {
  const section = document.getElementById("pairs");
  section.replaceChildren();
  const lines = data.tables.flatMap((one) => others.map((other) => pair(one, first, other))).filter(Boolean);
  if (!lines.length) {
    section.append(element("p", "Choose a method that has finished sets in the same tables.", { class: "soft" }));
    return;
  }
  holm(lines);
  const name = data.names[first];
  const tested = lines.filter((line) => line.raw != null), separated = tested.filter((line) => line.holm < ALPHA);
  const won = separated.filter((line) => line.difference > 0).length, lost = separated.length - won;
  const untested = lines.length - tested.length;
  section.append(element("h2", `${name} minus each of the others`));
  section.append(element("p", `Over ${lines.length} comparison${lines.length === 1 ? "" : "s"}: ${won} won, ${tested.length - separated.length} not told apart, ${lost} lost${untested ? `, ${untested} not tested` : ""} (5 %, Holm's correction over the tests shown; bench compare corrects over all tables that it is asked for).`, { id: "score" }));
  const scroll = element("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Differences" });
  const made = element("table", null, { id: "differences" });
  const head = made.createTHead().insertRow();
  [["compared with", "text"], ["IPC", ""], ["accuracies %", ""], ["sets", ""], ["difference", ""], ["95 % interval", ""], ["p", ""], ["p (Holm)", ""], ["verdict", "text"], ["equal within ±", ""], ["seen 4 times in 5", ""]]
    .forEach(([text, kind]) => head.append(element("th", text, { scope: "col", class: kind })));
  const body = made.createTBody();
  lines.forEach((line) => {
    const row = body.insertRow();
    row.append(element("th", data.names[line.b.id], { scope: "row", class: "text wrap" }));
    const [said, kind] = verdict(line, name);
    const interval = line.low == null ? "–" : `${signed(line.low)} … ${signed(line.high)}`;
    [[line.table.ipc ?? "all", ""], [`${line.a.mean.toFixed(2)} / ${line.b.mean.toFixed(2)}`, ""], [`${line.a.n} / ${line.b.n}`, ""], [signed(line.difference), ""], [interval, ""], [p(line.raw), ""], [p(line.holm), ""], [said, `text ${kind}`], [line.within == null ? "–" : line.within.toFixed(2), ""], [line.visible == null ? "–" : line.visible.toFixed(2), ""]]
      .forEach(([text, style]) => row.append(element("td", text, { class: style })));
  });
  scroll.append(made);
  section.append(scroll);
  section.append(element("p", "Equal within: the smallest margin at which two one-sided tests at 5 % call the two equivalent, not corrected for their number. Seen 4 times in 5: the true difference that this test finds with probability 0.8; smaller ones are mostly missed. Sets and test images are crossed random factors; sets of one seed are paired.", { class: "soft small" }));
}

// One class of a contact sheet, tile by tile; `across` classes in a row of it, with `gap` tiles between them.
function strip(kind, source, side, index, columns, classes, across = 1, gap = 0) {
  const made = element("div", null, { class: "tiles strip", "data-kind": kind });
  const place = (tiles) => `${tiles * side}px`;
  for (let column = 0; column < columns; column += 1) {
    const tile = element("div", null, { class: "tile" });
    tile.style.width = tile.style.height = place(1);
    tile.style.backgroundImage = `url("${source}")`;
    tile.style.backgroundSize = `${place(across * (columns + gap) - gap)} ${place(Math.ceil(classes / across))}`;
    tile.style.backgroundPosition = `${place(-(index % across) * (columns + gap) - column)} ${place(-Math.floor(index / across))}`;
    made.append(tile);
  }
  return made;
}

function images() {
  const grids = document.getElementById("grids");
  if (!grids) return;
  const row = Number(document.getElementById("class").value), ipc = document.getElementById("gridipc").value;
  grids.querySelectorAll(".grid").forEach((grid) => {
    const other = grid.dataset.ipc !== ipc || row >= Number(grid.dataset.classes);
    grid.classList.toggle("other-ipc", other);
    const tiles = grid.querySelector(".tiles");
    tiles.replaceChildren();
    if (other || grid.hidden) return;
    const of = grid.dataset, side = Number(of.side);
    tiles.append(strip("distilled", of.src, side, row, Number(of.columns), of.classes, Number(of.across), Number(of.gap)));
    if (of.nearest) tiles.append(strip("nearest", of.nearest, side, row, Number(of.nearestColumns), of.nearestRows));
    const called = document.getElementById("class").selectedOptions[0].textContent;
    tiles.setAttribute("aria-label", `Images of class ${called} by ${grid.dataset.name}`);
  });
}

function update() {
  const first = baseline.value, others = boxes.filter((box) => box.checked && box.value !== first).map((box) => box.value);
  boxes.forEach((box) => { box.disabled = box.value === first; });
  const shown = new Set([first, ...others]);
  document.getElementById("count").textContent = `${others.length} of ${boxes.length - 1}`;
  document.querySelectorAll(".byrow [data-row]").forEach((part) => {
    const hide = !shown.has(part.dataset.row);
    if (part instanceof SVGElement) part.style.display = hide ? "none" : "";
    else part.hidden = hide;
  });
  table(first, others);
  images();
  history.replaceState(null, "", `#${[first, ...others].join(",")}`);
}

function fromAddress() {
  const asked = location.hash.slice(1).split(",").filter((id) => Object.hasOwn(data.names, id));
  const order = data.tables.map((one) => one.rows).sort((x, y) => y.length - x.length)[0].filter((row) => !row.reference).map((row) => row.id);
  const chosen = asked.length ? asked : order.slice(0, 6);
  baseline.value = chosen[0];
  boxes.forEach((box) => { box.checked = chosen.slice(1).includes(box.value); });
}

chooser.hidden = false;
fromAddress();
update();
chooser.addEventListener("change", update);
window.addEventListener("hashchange", () => { fromAddress(); update(); });
const every = (on) => () => { boxes.forEach((box) => { box.checked = on; }); update(); };
document.getElementById("all").addEventListener("click", every(true));
document.getElementById("none").addEventListener("click", every(false));
document.getElementById("class")?.addEventListener("change", images);
document.getElementById("gridipc")?.addEventListener("change", images);
