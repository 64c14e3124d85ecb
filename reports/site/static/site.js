// Sorting, filtering, ticking and the theme. Pages are whole without it.
"use strict";

const root = document.documentElement;
const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
if (stored()) root.dataset.theme = stored();

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a page from disk may have no storage */ }
  });
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll(".controls[data-for]").forEach(filterable);
});

function value(row, column, kind) {
  const cell = row.cells[column];
  if (kind === "text") return cell.textContent.trim().toLowerCase();
  return parseFloat(cell.dataset.value ?? cell.textContent.replace(/,/g, ""));
}

// What has no number comes last, whichever way the others are sorted.
function before(a, b, kind, sign) {
  if (kind === "text") return sign * a.localeCompare(b);
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return sign * (a - b);
}

function sortable(table) {
  const body = table.tBodies[0];
  table.tHead.querySelectorAll("th[data-sort]").forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const order = now ? (now === "ascending" ? "descending" : "ascending") : head.dataset.first;
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const kind = head.dataset.sort, sign = order === "ascending" ? 1 : -1, column = head.cellIndex;
      const rows = [...body.rows].map((row) => [value(row, column, kind), row]);
      rows.sort(([a], [b]) => before(a, b, kind, sign));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function filterable(controls) {
  const table = document.getElementById(controls.dataset.for);
  const rows = [...table.tBodies[0].rows];
  const input = (name) => controls.querySelector(`[data-filter="${name}"]`);
  const status = controls.querySelector("#shown");
  controls.hidden = false;
  const apply = () => {
    const words = (input("text")?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...controls.querySelectorAll("select[data-filter]")].filter((select) => select.value !== "");
    const complete = input("complete")?.checked;
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || (complete && row.dataset.complete !== "1")
        || chosen.some((select) => (select.dataset.column ? row.cells[select.dataset.column].textContent
          : row.dataset[select.dataset.filter]) !== select.value);
    });
    status.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  controls.addEventListener("input", apply);
  apply();
  const compare = controls.querySelector("#compare");
  if (!compare) return;
  table.querySelectorAll(".pick").forEach((cell) => { cell.hidden = false; });
  const ticked = () => rows.filter((row) => row.querySelector(".pick input").checked).map((row) => row.dataset.id);
  table.addEventListener("change", () => { compare.disabled = ticked().length < 2; });
  compare.addEventListener("click", () => { location.href = `${compare.dataset.href}#${ticked().join(",")}`; });
}
