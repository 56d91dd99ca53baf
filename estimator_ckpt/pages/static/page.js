// Draws views, which are plain data, into an element. Names come from files that anyone may have
// made: they become text nodes and nothing else. contents.js and views.js stand behind this in one
// module (document.py).

const ROLE_COLOURS = {
  weight: "--weight", slot: "--slot", average: "--average", statistic: "--statistic",
};
const PAGE = 50;
const MOST_CHILDREN = 400;
const MOST_RECTANGLES = 60;
const MOST_PRINTED = 2000;
const ROW_HEIGHT = 22;
const NAMELESS = "(no name)";  // a scope before or behind a slash with nothing
const SVG = "http://www.w3.org/2000/svg";
const TITLES = {
  contents: "Contents", mapping: "Mapping", changes: "Changes", values: "Values",
  history: "Over time", table: "Findings",
};
const DRAW = { contents: drawContents, mapping: drawMapping, changes: drawChanges, values: drawValues,
  history: drawHistory, table: drawTable };

/** Draws all views below each other. `theme` is "light", "dark", or nothing: as the system has it. */
export function drawViews(root, views, theme) {
  root.replaceChildren();
  root.classList.add("ckpt");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => root.classList.toggle("dark", theme ? theme === "dark" : dark.matches);
  apply();
  if (!theme) dark.addEventListener("change", apply);
  const sections = views.map((view, index) => {
    const section = element("section", { id: `view-${index}`, "data-view": view.view });
    section.append(element("h2", {}, heading(view)));
    DRAW[view.view](section, view);
    return section;
  });
  if (views.length > 1) {
    root.append(element("nav", { "aria-label": "views" }, ...views.map((view, index) =>
      element("a", { href: `#view-${index}` }, heading(view)))));
  }
  root.append(...sections);
  if (views.length) root.prepend(element("h1", {}, "Checkpoints"));
}

function heading(view) {
  const about = view.title || view.prefix || view.model_dir || (view.a && `${view.a} → ${view.b}`);
  return about ? `${TITLES[view.view]}: ${about}` : TITLES[view.view];
}

// --- elements ---

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function colour(name) {
  return `var(${ROLE_COLOURS[name] || "--number"})`;
}

/** Not Math.max(...list), which takes no more than some 100,000 values. */
function largest(list, start) {
  return list.reduce((most, value) => value > most ? value : most, start);
}

function bytesText(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 999.95 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(4);
}

function share(part, whole) {
  return whole ? `${(100 * part / whole).toFixed(1)} %` : "0 %";
}

// --- a table of very many rows: searched, sorted, a page at a time ---

for (const [name, detail] of [["beforeprint", true], ["afterprint", false]]) {
  window.addEventListener(name, () => document.querySelectorAll(".paged:not(.screen)")
    .forEach((box) => box.dispatchEvent(new CustomEvent("paper", { detail }))));
}

/**
 * columns: [{title, cell(row) -> text or node, value(row) to sort by, right}]; rows: any values.
 * text(row) is what is searched; choices: [[label, test(row)]] for a menu.
 */
function pagedTable({ label, rows, columns, text, choices = [], draw = null, perPage = PAGE }) {
  const box = element("div", { class: "paged" });
  const search = element("input", { type: "search", size: 30, "aria-label": `search ${label}`,
    placeholder: "search: words of a name" });
  const menu = element("select", { "aria-label": `which ${label}` },
    element("option", { value: -1 }, "all"),
    ...choices.map(([name], index) => element("option", { value: index }, name)));
  const back = element("button", { type: "button" }, "Previous");
  const forth = element("button", { type: "button" }, "Next");
  const where = element("span", { class: "dim", role: "status" });
  const printed = element("p", { class: "printed dim" });
  const body = element("tbody");
  const heads = columns.map((column, index) => element("th", {
    class: column.right && "right", scope: "col" },
  element("button", { type: "button", click: () => sortBy(index) }, column.title)));
  const words = rows.map((row) => text(row).toLowerCase());
  let first = 0, chosen = rows.map((_, index) => index), sorted = -1, down = false, onPaper = false;

  function choose() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const test = choices[menu.value] && choices[menu.value][1];
    chosen = [];
    for (let index = 0; index < rows.length; index += 1) {
      if (wanted.every((word) => words[index].includes(word)) && (!test || test(rows[index]))) {
        chosen.push(index);
      }
    }
    if (sorted >= 0) {
      const value = columns[sorted].value;
      const sign = down ? -1 : 1;
      chosen.sort((a, b) => {
        const x = value(rows[a]) ?? -Infinity, y = value(rows[b]) ?? -Infinity;
        return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
      });
    }
    first = 0;
    show();
  }
  function sortBy(index) {
    if (sorted !== index) { sorted = index; down = Boolean(columns[index].right); }
    else down = !down;
    heads.forEach((head, place) => head.setAttribute("aria-sort",
      place === sorted ? (down ? "descending" : "ascending") : "none"));
    choose();
  }
  function show() {
    const start = onPaper ? 0 : first;
    const shown = chosen.slice(start, start + (onPaper ? MOST_PRINTED : perPage))
      .map((index) => rows[index]);
    if (draw) body.replaceChildren(draw(shown));
    else body.replaceChildren(...shown.map((row) => rowOf(row, columns)));
    where.textContent = chosen.length ? `${(start + 1).toLocaleString("en")}–${(start + shown.length)
      .toLocaleString("en")} of ${chosen.length.toLocaleString("en")}` : "nothing found";
    printed.textContent = `${where.textContent}${chosen.length < rows.length
      ? `, chosen of ${rows.length.toLocaleString("en")}` : ""}`;
    back.disabled = first === 0;
    forth.disabled = first + perPage >= chosen.length;
  }
  box.addEventListener("paper", (event) => { onPaper = event.detail; show(); });
  search.addEventListener("input", choose);
  menu.addEventListener("change", choose);
  back.addEventListener("click", () => { first = Math.max(0, first - perPage); show(); });
  forth.addEventListener("click", () => { first += perPage; show(); });
  box.append(element("div", { class: "bar" }, search, choices.length > 1 ? menu : null, back, forth,
    where), printed);
  if (draw) box.append(body);
  else box.append(element("div", { class: "tablewrap" }, element("table", { "aria-label": label },
    element("thead", {}, element("tr", {}, ...heads)), body)));
  show();
  return box;
}

function rowOf(row, columns) {
  return element("tr", {}, ...columns.map((column) => {
    const cell = column.cell(row);
    const isName = column.name && typeof cell === "string";
    return element("td", { class: [column.right && "right", column.name && "name",
      column.bad && column.bad(row) && "bad"].filter(Boolean).join(" ") || null,
    title: isName && cell.length > 60 ? cell : null }, cell);
  }));
}
