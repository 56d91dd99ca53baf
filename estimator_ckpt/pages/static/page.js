// Draws views, which are plain data, into an element. Names come from files that anyone may have
// made: they become text nodes and nothing else.

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

// --- contents ---

function drawContents(section, view) {
  section.append(element("dl", {}, ...view.facts.flatMap(([label, text]) =>
    [element("dt", {}, label), element("dd", {}, text)])));
  section.append(element("dl", {}, ...view.totals.flatMap(([label, count, size]) =>
    [element("dt", {}, label), element("dd", {}, `${count}, ${size}`)])));
  const data = view.variables;
  if (data.bytes.some((count) => count > 0)) drawMap(section, view);
  section.append(element("h3", {}, "Variables"));
  const rows = data.name.map((_, index) => index);
  const inMenu = view.roles.filter((_, role) => data.role.includes(role));
  const table = pagedTable({
    label: "variables", rows, text: (row) => `${data.name[row]} ${data.path[row]}`,
    choices: inMenu.map((role) => [role, (row) => view.roles[data.role[row]] === role]),
    columns: [
      { title: "name", name: true, cell: (row) => data.name[row], value: (row) => data.name[row] },
      { title: "tensor", cell: (row) => view.dtypes[data.dtype[row]] + view.shapes[data.shape[row]],
        value: (row) => view.dtypes[data.dtype[row]] },
      { title: "bytes", right: true, cell: (row) => data.bytes[row].toLocaleString("en"),
        value: (row) => data.bytes[row] },
      { title: "role", cell: (row) => view.roles[data.role[row]],
        value: (row) => view.roles[data.role[row]] },
      { title: "of", name: true, cell: (row) => data.owner[row] < 0 ? "" : data.name[data.owner[row]],
        value: (row) => data.owner[row] },
      { title: "object path", name: true, cell: (row) => data.path[row],
        value: (row) => data.path[row] },
    ],
  });
  table.classList.add("screen");
  section.append(table, paperTable(view));
  if (view.objects) {
    section.append(element("h3", {}, "Objects"));
    section.append(objectTree(view));
  }
}

/** What is printed in the table's place: repeated layers in a row. */
function paperTable(view) {
  const rows = view.folded.slice(0, MOST_PRINTED);
  const more = view.folded.length - rows.length;
  return element("div", { class: "paper" },
    element("table", {}, element("tbody", {}, ...rows.map(([name, tensor, size]) =>
      element("tr", {}, element("td", { class: "name" }, name), element("td", {}, tensor),
        element("td", { class: "right" }, Number(size).toLocaleString("en")))))),
    more > 0 ? `… and ${more.toLocaleString("en")} more rows` : null);
}

/** Bytes by scope: nested names, each with its bytes for each role. */
function scopes(view) {
  const data = view.variables;
  const made = (name, path) => ({ name, path, children: new Map(), bytes: 0, roles: new Map(),
    own: new Map() });
  const add = (roles, role, bytes) => roles.set(role, (roles.get(role) || 0) + bytes);
  const root = made("", "");
  for (let index = 0; index < data.name.length; index += 1) {
    const owner = data.owner[index] < 0 ? index : data.owner[index];
    const role = view.roles[data.role[index]];
    let scope = root;
    const parts = data.name[owner].split("/");
    for (let depth = 0; depth <= parts.length; depth += 1) {
      scope.bytes += data.bytes[index];
      add(scope.roles, role, data.bytes[index]);
      if (depth === parts.length) break;
      const part = parts[depth];
      if (!scope.children.has(part)) {
        scope.children.set(part, made(part, parts.slice(0, depth + 1).join("/")));
      }
      scope = scope.children.get(part);
    }
    add(scope.own, role, data.bytes[index]);
  }
  return root;
}

function drawMap(section, view) {
  section.append(element("h3", {}, "Bytes by scope"));
  const used = [...new Set(view.variables.role)].map((role) => view.roles[role]);
  section.append(element("div", { class: "bar legend" }, ...used.map((role) => element("span", {},
    element("i", { style: `background: ${colour(role)}` }), role))));
  const trail = element("div", { class: "bar", role: "group", "aria-label": "scope" });
  const holder = element("div", { class: "map" });
  section.append(trail, holder);
  const stack = [scopes(view)];
  const go = (depth) => { stack.length = depth + 1; draw(); };
  function draw() {
    trail.replaceChildren(...stack.map((scope, depth) => element("button", { type: "button",
      disabled: depth === stack.length - 1 ? "" : null, click: () => go(depth) },
    depth ? scope.name || NAMELESS : "all")), element("span", { class: "dim" },
      bytesText(stack[stack.length - 1].bytes)));
    holder.replaceChildren(treemap(stack[stack.length - 1], (scope) => {
      stack.push(scope);
      draw();
      const again = holder.querySelector(".zoom") || trail.querySelector("button");
      if (again) again.focus();
    }));
  }
  draw();
}

/** Two levels below a scope; what is small goes together. */
function treemap(scope, zoom) {
  const width = 1000, height = 400;
  const level = (one, depth) => {
    const children = [...one.children.values()].filter((child) => child.bytes > 0);
    if (depth === 2 || !children.length) {
      return { scope: one, children: [...one.roles].map(([role, bytes]) => ({ role, bytes })) };
    }
    const own = largest([...one.own.values()], 0);
    if (own > 0) {  // a variable whose name is another's scope, as of an average: `w` and `w/average`
      children.push({ ...one, children: new Map(), roles: one.own,
        bytes: [...one.own.values()].reduce((sum, bytes) => sum + bytes, 0) });
    }
    children.sort((a, b) => b.bytes - a.bytes);
    const rest = children.slice(MOST_RECTANGLES);
    const shown = children.slice(0, MOST_RECTANGLES).map((child) => level(child, depth + 1));
    if (rest.length) {
      const roles = new Map();
      for (const child of rest) {
        for (const [role, bytes] of child.roles) roles.set(role, (roles.get(role) || 0) + bytes);
      }
      const others = { name: `${rest.length.toLocaleString("en")} more`, children: new Map(), roles,
        bytes: rest.reduce((sum, child) => sum + child.bytes, 0) };
      shown.push({ scope: others,
        children: [...roles].map(([role, bytes]) => ({ role, bytes })) });
    }
    return { scope: one, children: shown };
  };
  const root = d3.hierarchy(level(scope, 0)).sum((node) => (node.children ? 0 : node.bytes || 0));
  d3.treemap().size([width, height]).paddingInner(1).paddingTop((node) => node.depth === 1 ? 16 : 0)
    .round(true)(root);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": "bytes by scope" });
  const visit = (node, into) => {
    const box = { x: node.x0, y: node.y0, width: Math.max(0, node.x1 - node.x0),
      height: Math.max(0, node.y1 - node.y0) };
    const own = node.data.scope;
    const group = into.appendChild(shape("g"));
    if (node.depth) group.append(shape("rect", { ...box, class: "frame" }));
    for (const child of node.children) {
      if (!child.children) {
        group.append(shape("rect", { x: child.x0, y: child.y0, width: child.x1 - child.x0,
          height: child.y1 - child.y0, fill: colour(child.data.role) }));
      }
    }
    if (!node.depth) {
      node.children.forEach((child) => child.children && visit(child, group));
      return;
    }
    const label = `${own.name || NAMELESS}: ${bytesText(own.bytes)}`;
    const top = node.depth === 1;
    if (box.width > 40 && box.height > 14) {
      const room = Math.floor(box.width / 7);
      group.append(shape("text", { x: box.x + 4, y: box.y + 12, class: top ? "scope" : null },
        label.length > room ? `${label.slice(0, Math.max(1, room - 1))}…` : label));
    }
    const opens = own.children.size > 0 && top;
    group.append(shape("rect", { ...box, fill: "transparent" },
      shape("title", {}, `${own.path || own.name || NAMELESS}: ${bytesText(own.bytes)}`)));
    node.children.forEach((child) => child.children && visit(child, group));
    if (!opens) return;
    filled(group, { class: "zoom", tabindex: 0, role: "button", "aria-label": `zoom to ${label}`,
      click: () => zoom(own),
      keydown: (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); zoom(own); }
      } }, []);
  };
  visit(root, picture);
  return picture;
}

/** Objects as nested details, each filled when it is opened; where an object stands again, its id. */
function objectTree(view) {
  const { children, tensors, classes } = view.objects;
  const data = view.variables;
  const tensorText = (index) => view.dtypes[data.dtype[index]] + view.shapes[data.shape[index]];
  const about = (node) => [classes[node], ...(tensors[node] || []).map((index) =>
    `${tensorText(index)}  ${data.name[index]}`)].filter(Boolean).join("  ");
  const fill = (holder, node, above, start) => {
    const edges = children[node];
    for (const [name, child] of edges.slice(start, start + MOST_CHILDREN)) {
      holder.append(make(name, child, above));
    }
    const more = edges.length - start - MOST_CHILDREN;
    if (more > 0) {
      const button = element("button", { type: "button", class: "leaf", click: () => {
        button.remove();
        fill(holder, node, above, start + MOST_CHILDREN);
      } }, `${more.toLocaleString("en")} more`);
      holder.append(button);
    }
  };
  const make = (name, node, above) => {
    const text = [element("bdi", {}, name), " ", element("span", { class: "dim" }, about(node))];
    if (above.includes(node)) {
      return element("div", { class: "leaf" }, ...text, " (a circle)");
    }
    if (!children[node].length) return element("div", { class: "leaf" }, ...text);
    const holder = element("details", { class: above.length ? null : "top" },
      element("summary", {}, ...text));
    holder.addEventListener("toggle", () => fill(holder, node, [...above, node], 0), { once: true });
    return holder;
  };
  const top = make("root", 0, []);
  if (top.tagName === "DETAILS") top.open = true;
  return top;
}

// --- mapping ---

function drawMapping(section, view) {
  const bad = new Set(view.bad);
  if (view.hint) section.append(element("p", {}, view.hint));
  section.append(element("p", {}, ...Object.entries(view.totals).flatMap(([status, count], index) => [
    index ? ", " : null,
    element("span", { class: bad.has(status) && "bad" }, `${count.toLocaleString("en")} ${status}`)])));
  const statuses = Object.keys(view.totals);
  const colours = ["--weight", "--average", "--statistic", "--slot", "--number"];
  const lineColour = (status) => bad.has(status) ? "var(--bad)"
    : `var(${colours[statuses.indexOf(status) % colours.length]})`;
  section.append(element("div", { class: "bar legend" }, ...statuses.map((status) => element("span", {},
    element("i", { style: `background: ${lineColour(status)}` }), status))));
  const times = (count) => count > 1 ? `  ×${count.toLocaleString("en")}` : "";
  section.append(pagedTable({
    label: "lines", rows: view.rows, perPage: 60,
    text: ([status, left, right, note]) => `${status} ${left} ${right} ${note}`,
    choices: statuses.map((status) => [status, (row) => row[0] === status]),
    columns: [],
    draw: (rows) => {
      const lefts = rows.filter((row) => row[1]).sort((a, b) => (a[1] < b[1] ? -1 : 1));
      const rights = rows.filter((row) => row[2]);
      const height = Math.max(lefts.length, rights.length, 1) * ROW_HEIGHT;
      const picture = shape("svg", { viewBox: `0 0 100 ${height}`, width: "100%", height,
        preserveAspectRatio: "none", "aria-hidden": "true" });
      const placeOf = new Map(lefts.map((row, index) => [row, index]));
      rights.forEach((row, index) => {
        if (!placeOf.has(row)) return;
        const y = (placeOf.get(row) + 0.5) * ROW_HEIGHT, z = (index + 0.5) * ROW_HEIGHT;
        picture.append(shape("path", { d: `M0 ${y} C50 ${y} 50 ${z} 100 ${z}`,
          "vector-effect": "non-scaling-stroke", style: `stroke: ${lineColour(row[0])}` }));
      });
      const name = (text, row, side) => element("div", { class: [side, bad.has(row[0]) && "bad"]
        .filter(Boolean).join(" "), title: [text, row[0], row[3]].filter(Boolean).join("\n") },
      text, element("span", { class: "dim" }, times(row[4])));
      const column = (title, names, side) => element("section", { "aria-label": title },
        element("div", { class: `${side} dim` }, title), ...names);
      return element("div", {},
        element("div", { class: "ends" },
          column(view.left, lefts.map((row) => name(row[1], row, "left")), "left"),
          element("section", {}, element("div"), picture),
          column(view.right, rights.map((row) => name(row[2], row, "right")), "right")),
        element("details", { class: "top" }, element("summary", {}, "the same as a table"),
          element("div", { class: "tablewrap" }, element("table", {},
            element("thead", {}, element("tr", {}, ...["status", view.left, view.right, "by", "count"]
              .map((title) => element("th", { scope: "col" }, title)))),
            element("tbody", {}, ...rows.map((row) => element("tr", {},
              element("td", { class: bad.has(row[0]) && "bad" }, row[0]),
              element("td", { class: "name" }, row[1]), element("td", { class: "name" }, row[2]),
              element("td", {}, row[3]), element("td", { class: "right" }, number(row[4])))))))));
    },
  }));
}

// --- values ---

/** Histograms over one range, drawn over each other. */
function bars(histograms, colours, label) {
  const width = 120, height = 28, count = histograms[0] ? histograms[0].length : 0;
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": label });
  if (!count) return picture;
  histograms.forEach((counts, which) => {
    const most = Math.max(...counts, 1);
    const points = counts.map((value, place) => {
      const x = place * width / count, y = height - value / most * (height - 2);
      return `L${x} ${y} L${x + width / count} ${y}`;
    }).join(" ");
    picture.append(shape("path", { d: `M0 ${height} ${points} L${width} ${height} Z`, "fill-opacity":
      histograms.length > 1 ? 0.25 : 0.8, style: `fill: var(${colours[which]}); stroke: ` +
      `${histograms.length > 1 ? `var(${colours[which]})` : "none"}` }));
  });
  return picture;
}

function oddText(spread) {
  return [spread.nan && `${number(spread.nan)} NaN`, spread.infinite && `${number(spread.infinite)} Inf`]
    .filter(Boolean).join(", ");
}

function drawValues(section, view) {
  section.append(pagedTable({
    label: "values", rows: view.rows, text: (row) => row[0],
    choices: [["with NaN or Inf", ([, , spread]) => spread.nan || spread.infinite],
      ["all zero", ([, , spread]) => spread.count && spread.zeros === spread.count]],
    columns: [
      { title: "name", name: true, cell: ([name]) => name, value: ([name]) => name },
      { title: "tensor", cell: ([, tensor]) => tensor, value: ([, tensor]) => tensor },
      { title: "distribution", cell: ([name, , spread, counts]) =>
        bars([counts], ["--weight"], `from ${number(spread.low)} to ${number(spread.high)}`),
      value: ([, , spread]) => spread.high },
      { title: "min", right: true, cell: (row) => number(row[2].low), value: (row) => row[2].low },
      { title: "max", right: true, cell: (row) => number(row[2].high), value: (row) => row[2].high },
      { title: "norm", right: true, cell: (row) => number(row[2].norm), value: (row) => row[2].norm },
      { title: "zeros", right: true, cell: (row) => share(row[2].zeros, row[2].count),
        value: (row) => row[2].zeros / (row[2].count || 1) },
      { title: "NaN, Inf", cell: (row) => oddText(row[2]), bad: () => true,
        right: true, value: (row) => row[2].nan + row[2].infinite },
    ],
  }));
  if (view.left_out.length) {
    section.append(element("details", { class: "top dim", open: view.left_out.length <= 20 && "" },
      element("summary", {}, `${view.left_out.length.toLocaleString("en")} without numbers`),
      element("p", { class: "long" }, view.left_out.join(", "))));
  }
}

function drawChanges(section, view) {
  section.append(element("p", {}, `${view.same.toLocaleString("en")} of ` +
    `${(view.same + view.rows.length).toLocaleString("en")} variables are the same.`),
  ...view.notes.map((note) => element("p", { class: "dim" }, note)));
  section.append(element("div", { class: "bar legend" },
    ...[["A", "--before"], ["B", "--after"]].map(([label, name]) => element("span", {},
      element("i", { style: `background: var(${name})` }), label))));
  const most = largest(view.rows.map((row) => row.relative || 0), 1e-300);
  const odd = (row) => [["A", row.before], ["B", row.after]].filter(([, spread]) => spread)
    .map(([side, spread]) => oddText(spread) && `${side}: ${oddText(spread)}`).filter(Boolean).join("; ");
  const statuses = [...new Set(view.rows.map((row) => row.status))];
  section.append(pagedTable({
    label: "changes", rows: view.rows, text: (row) => `${row.name} ${row.status}`,
    choices: statuses.map((status) => [status, (row) => row.status === status]),
    columns: [
      { title: "name", name: true, cell: (row) => row.name, value: (row) => row.name },
      { title: "status", cell: (row) => row.status, value: (row) => row.status,
        bad: (row) => row.status !== "changed" && row.status !== "close" },
      { title: "relative change", right: true, value: (row) => row.relative ?? -1,
        cell: (row) => row.relative === undefined || row.relative === null ? "–"
          : element("span", {}, number(row.relative), shape("svg", { width: 100, height: 10,
            viewBox: "0 0 100 10", "aria-hidden": "true" }, shape("rect", { x: 0, y: 1, height: 8,
            width: 100 * row.relative / most, style: "fill: var(--after)" }))) },
      { title: "values that differ", right: true, value: (row) => row.differing ?? -1,
        cell: (row) => row.count === undefined ? "" : `${number(row.differing)} of ${number(row.count)}` },
      { title: "A and B", value: (row) => row.relative ?? -1, cell: (row) => row.counts
        ? bars(row.counts, ["--before", "--after"],
          `from ${number(row.range[0])} to ${number(row.range[1])}`)
        : [row.a && `A ${row.a}`, row.b && `B ${row.b}`].filter(Boolean).join(", ") },
      { title: "NaN, Inf", cell: odd, bad: () => true, value: odd },
    ],
  }));
}

// --- a run over time ---

function drawHistory(section, view) {
  const rows = view.rows;
  if (view.problem) section.append(element("p", { class: "bad" }, view.problem));
  if (!rows.length) {
    section.append(element("p", {}, "No checkpoints."));
    return;
  }
  const width = 1000, height = 120, steps = rows.map((row) => Math.max(0, row.step));
  const low = -largest(steps.map((step) => -step), -steps[0]), high = largest(steps, 0);
  const most = largest(rows.map((row) => row.bytes || 0), 1);
  const x = (step) => 20 + (width - 40) * (high > low ? (step - low) / (high - low) : 0.5);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "checkpoints by step; the height is the size" },
  shape("line", { x1: 0, x2: width, y1: 96, y2: 96, style: "stroke: var(--line)" }));
  for (const row of rows) {
    const there = row.bytes !== null;
    const tall = there ? 8 + 70 * row.bytes / most : 6;
    picture.append(shape("rect", { x: x(row.step) - 3, y: 96 - tall, width: 6, height: tall,
      style: there ? `fill: var(${row.kept ? "--weight" : "--slot"})`
        : "fill: none; stroke: var(--number)" },
    shape("title", {}, `${row.name}: ${there ? bytesText(row.bytes) : "deleted"}`)));
  }
  picture.append(shape("text", { x: 0, y: 114 }, `step ${number(low)}`),
    shape("text", { x: width, y: 114, "text-anchor": "end" }, `step ${number(high)}`));
  section.append(picture, element("div", { class: "bar legend" },
    ...[["kept", "--weight"], ["there, not in the state file", "--slot"], ["deleted", "--number"]]
      .map(([label, name]) => element("span", {},
        element("i", { style: `background: var(${name})` }), label))));
  const state = (row) => row.problem || (row.bytes === null ? (row.kept ? "missing" : "deleted")
    : row.newest ? "newest" : row.kept ? "kept" : "not in the state file");
  section.append(pagedTable({
    label: "checkpoints", rows: [...rows].reverse(), text: (row) => row.name, choices: [],
    columns: [
      { title: "checkpoint", name: true, cell: (row) => row.name, value: (row) => row.name },
      { title: "step", right: true, cell: (row) => row.step < 0 ? "" : number(row.step),
        value: (row) => row.step },
      { title: "saved", cell: (row) => row.saved
        ? new Date(row.saved * 1000).toISOString().slice(0, 19).replace("T", " ") : "",
      value: (row) => row.saved || 0 },
      { title: "size", right: true, cell: (row) => row.bytes === null ? "" : bytesText(row.bytes),
        value: (row) => row.bytes || 0 },
      { title: "format", cell: (row) => row.format || "", value: (row) => row.format || "" },
      { title: "state", cell: state, value: state, bad: (row) => Boolean(row.problem)
        || (row.bytes === null && row.kept) },
    ],
  }));
}

function drawTable(section, view) {
  if (view.total) section.append(element("p", {}, view.total));
  section.append(pagedTable({
    label: "findings", rows: view.rows, text: (row) => row.join(" "), choices: [],
    columns: view.headers.map((title, place) => ({ title, name: place > 0, cell: (row) => row[place],
      value: (row) => row[place], bad: (row) => place === 0 && view.bad.includes(row[0]) })),
  }));
}
