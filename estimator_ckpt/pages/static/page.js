// Draws views, which are plain data, into an element. Names come from files that anyone may have
// made: they become text nodes and nothing else. contents.js and views.js stand behind this in one
// module (document.py).

const ROLE_COLOURS = {
  weight: "--weight", slot: "--slot", average: "--average", statistic: "--statistic",
};
const PAGE = 50;
const MOST_CHILDREN = 400;
const MOST_PRINTED = 2000;
const MOST_OF_A_NAME = 200;  // characters in a row; the rest of a longer one is shown on request
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
  const place = focusIn(root), top = window.scrollY;
  root.replaceChildren();
  root.classList.add("ckpt");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => root.classList.toggle("dark", theme ? theme === "dark" : dark.matches);
  apply();
  if (!theme) dark.addEventListener("change", apply);
  if (views.length) root.append(element("h1", {}, "Checkpoints"));
  if (views.length > 1) {
    root.append(element("nav", { "aria-label": "views" }, ...views.map((view, index) =>
      element("a", { href: `#view-${index}` }, TITLES[view.view]))));
  }
  views.forEach((view, index) => {
    const section = element("section", { id: `view-${index}`, "data-view": view.view });
    section.append(element("h2", {}, TITLES[view.view], " ",
      element("bdi", { class: "about" }, aboutText(view))));
    root.append(section);  // before it is drawn: the map is as wide as the page
    DRAW[view.view](section, view);
  });
  if (views.length) window.scrollTo(0, top);
  place();
}

/** What gives the focus back to the field or button that has it, once all is drawn anew. */
function focusIn(root) {
  const active = document.activeElement;
  const section = root.contains(active) && active.closest("[data-view]");
  const label = section && active.getAttribute("aria-label");
  if (!label) return () => {};
  const { selectionStart, selectionEnd } = active;
  return () => {
    const again = root.querySelector(`[data-view=${section.dataset.view}] [aria-label=${CSS.escape(label)}]`);
    if (!again) return;
    again.focus({ preventScroll: true });
    if (selectionStart !== undefined) again.setSelectionRange(selectionStart, selectionEnd);
  };
}

function aboutText(view) {
  return view.title || view.prefix || view.model_dir || (view.a ? `${view.a} → ${view.b}` : "");
}

const STATE = new Map();

/** What was searched, sorted and opened, by a key: the tab draws a new checkpoint in the same way. */
function remembered(key, initial) {
  if (!STATE.has(key)) STATE.set(key, initial);
  return STATE.get(key);
}

// --- elements ---

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children = []) {
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
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  return Math.abs(value) < 1e-4 ? value.toExponential(3) : value.toPrecision(4);
}

/** A name, or a sentence with names: lines break behind slashes. */
function longText(text) {
  if (text.length <= MOST_OF_A_NAME) {
    const [first, ...parts] = text.split(/(?<=\/)/);
    return parts.length ? element("span", {}, first, ...parts.flatMap((part) =>
      [document.createElement("wbr"), part])) : text;
  }
  return element("details", { class: "long" },
    element("summary", {}, `${text.slice(0, MOST_OF_A_NAME)}…`), text.slice(MOST_OF_A_NAME));
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
 * columns: [{title, cell(row) -> text or node, value(row) to sort by, right, name, bad(row)}]; rows:
 * any values. text(row) is what is searched; choices: [[label, test(row)]] for a menu.
 */
function pagedTable({ label, rows, columns, text, choices = [], kind = null }) {
  const state = remembered(label, { search: "", choice: "", sorted: "", down: false, first: 0 });
  const box = element("div", { class: "paged" });
  const search = element("input", { type: "search", size: 30, "aria-label": `search ${label}`,
    placeholder: "search: words of a name" });
  const menu = element("select", { "aria-label": `which ${label}` }, element("option", { value: "" },
    "all"), ...choices.map(([name]) => element("option", { value: name }, name)));
  const back = element("button", { type: "button" }, "Previous");
  const forth = element("button", { type: "button" }, "Next");
  const where = element("span", { class: "dim", role: "status" });
  const printed = element("p", { class: "printed dim" });
  const body = element("tbody");
  const heads = columns.map((column) => element("th", { class: column.right && "right", scope: "col" },
    element("button", { type: "button", click: () => sortBy(column) }, column.title)));
  let words = null, chosen = [], onPaper = false;

  function choose() {
    const wanted = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const choice = choices.find(([name]) => name === state.choice);
    if (wanted.length && !words) words = rows.map((row) => text(row).toLowerCase());
    chosen = [];
    for (let index = 0; index < rows.length; index += 1) {
      if (wanted.every((word) => words[index].includes(word)) && (!choice || choice[1](rows[index]))) {
        chosen.push(index);
      }
    }
    const column = columns.find((one) => one.title === state.sorted);
    if (column) {
      const sign = state.down ? -1 : 1;
      const values = rows.map((row) => column.value(row) ?? -Infinity);
      chosen.sort((a, b) => sign * (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0) || a - b);
    }
    columns.forEach((one, place) => heads[place].setAttribute("aria-sort",
      one === column ? (state.down ? "descending" : "ascending") : "none"));
    if (state.first >= chosen.length) state.first = 0;
    show();
  }
  function sortBy(column) {
    state.down = state.sorted === column.title ? !state.down : Boolean(column.right);
    state.sorted = column.title;
    begin();
  }
  function begin() {
    state.first = 0;
    choose();
  }
  function show() {
    const start = onPaper ? 0 : state.first;
    const shown = chosen.slice(start, start + (onPaper ? MOST_PRINTED : PAGE))
      .map((index) => rows[index]);
    body.replaceChildren(...shown.map((row) => rowOf(row, columns)));
    where.textContent = chosen.length ? `${(start + 1).toLocaleString("en")}–${(start + shown.length)
      .toLocaleString("en")} of ${chosen.length.toLocaleString("en")}` : "nothing found";
    printed.textContent = `${where.textContent}${chosen.length < rows.length
      ? `, chosen of ${rows.length.toLocaleString("en")}` : ""}`;
    back.disabled = state.first === 0;
    forth.disabled = state.first + PAGE >= chosen.length;
  }
  function turn(by) {
    state.first = Math.max(0, state.first + by);
    show();
  }
  box.addEventListener("paper", (event) => { onPaper = event.detail; show(); });
  search.addEventListener("input", () => { state.search = search.value; begin(); });
  menu.addEventListener("change", () => { state.choice = menu.value; begin(); });
  back.addEventListener("click", () => turn(-PAGE));
  forth.addEventListener("click", () => turn(PAGE));
  search.value = state.search;
  if (choices.some(([name]) => name === state.choice)) menu.value = state.choice;
  box.append(element("div", { class: "bar" }, search, choices.length > 1 ? menu : null, back, forth,
    where), printed, element("div", { class: "tablewrap" }, element("table", { class: kind,
    "aria-label": label }, element("thead", {}, element("tr", {}, ...heads)), body)));
  choose();
  return box;
}

function rowOf(row, columns) {
  return element("tr", {}, ...columns.map((column) => {
    const cell = column.cell(row);
    return element("td", { class: [column.right && "right", column.name && "name",
      column.bad && column.bad(row) && "bad"].filter(Boolean).join(" ") || null },
    typeof cell === "string" ? longText(cell) : cell);
  }));
}
