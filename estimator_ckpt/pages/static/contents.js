// The view of a checkpoint: its bytes by scope, its variables, its objects.

const MOST_PARTS = 60;  // of a scope, beside each other in the map
const MOST_LEVELS = 6;
const SMALLEST_SHARE = 0.002;  // of the whole, that the parts of a box have on average if it is opened
const LABEL_HEIGHT = 17;

function drawContents(section, view) {
  section.append(element("div", { class: "facts" },
    element("dl", {}, ...view.facts.flatMap(([label, text]) =>
      [element("dt", {}, label), element("dd", {}, text)])),
    totalsTable(view)));
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
      ...data.path.some(Boolean) ? [{ title: "object path", name: true,
        cell: (row) => data.path[row], value: (row) => data.path[row] }] : [],
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

/** A row for each role, with its colour on the map; all and all but slots above them. */
function totalsTable(view) {
  return element("table", { class: "totals", "aria-label": "totals" },
    element("thead", {}, element("tr", {}, ...["role", "variables", "parameters", "bytes"].map(
      (title, place) => element("th", { scope: "col", class: place && "right" }, title)))),
    element("tbody", {}, ...view.totals.map(([label, count, values, bytes]) => element("tr", {},
      element("th", { scope: "row" }, view.roles.includes(label)
        ? element("i", { class: "swatch", style: `background: ${colour(label)}` }) : null, label),
      element("td", { class: "right" }, number(count)), element("td", { class: "right" }, number(values)),
      element("td", { class: "right", title: number(bytes) }, bytesText(bytes))))));
}

// --- the map: bytes by scope ---

function madeScope(name, path, parent) {
  return { name, path, parent, children: new Map(), bytes: 0, roles: new Map(), own: new Map() };
}

function addBytes(scope, roles) {
  for (const [role, bytes] of roles) {
    scope.bytes += bytes;
    scope.roles.set(role, (scope.roles.get(role) || 0) + bytes);
  }
}

/** Nested scopes, each with its bytes for each role; `own` are those of a variable of its name. */
function scopes(view) {
  const data = view.variables;
  const root = madeScope("all", "", null);
  for (let index = 0; index < data.name.length; index += 1) {
    const owner = data.owner[index] < 0 ? index : data.owner[index];
    const roles = [[view.roles[data.role[index]], data.bytes[index]]];
    let scope = root, path = "";
    addBytes(scope, roles);
    for (const part of data.name[owner].split("/")) {
      path = scope === root ? part : `${path}/${part}`;
      if (!scope.children.has(part)) scope.children.set(part, madeScope(part, path, scope));
      scope = scope.children.get(part);
      addBytes(scope, roles);
    }
    for (const [role, bytes] of roles) scope.own.set(role, (scope.own.get(role) || 0) + bytes);
  }
  return root;
}

/** What a scope is opened into: its children; of very many those that are small in groups. */
function partsOf(scope) {
  if (scope.parts) return scope.parts;
  const children = [...scope.children.values()].filter((child) => child.bytes > 0).map(shortened);
  const own = madeScope(scope.name, scope.path, scope);
  addBytes(own, scope.own);
  const isLarge = (child) => children.length <= MOST_PARTS || child.bytes > scope.bytes / MOST_PARTS;
  const small = children.filter((child) => !isLarge(child));
  scope.parts = [...children.filter(isLarge), ...grouped(scope, small)];
  if (own.bytes && children.length) scope.parts.push(own);  // as of an average: `w` and `w/average`
  return scope.parts;
}

/** What is alone in its scope stands for it: `dense/kernel`. */
function shortened(scope) {
  const { parent } = scope, names = [scope.name];
  while (scope.children.size === 1 && !scope.own.size) {
    [scope] = scope.children.values();
    names.push(scope.name);
  }
  return Object.assign(scope, { name: names.join("/"), parent });
}

/** A name by which `layer_2` comes before `layer_10`. */
function asCounted(name) {
  return name.replace(/[0-9]+/g, (digits) => digits.padStart(12, "0"));
}

/** Groups of scopes that stand beside each other: `layer_0 … layer_59`. */
function grouped(parent, children) {
  const size = Math.max(MOST_PARTS, Math.ceil(children.length / MOST_PARTS));
  const counted = new Map(children.map((child) => [child, asCounted(child.name)]));
  children.sort((a, b) => counted.get(a) < counted.get(b) ? -1 : 1);
  const groups = [];
  for (let start = 0; start < children.length; start += size) {
    const members = children.slice(start, start + size);
    const [first, last] = [members[0], members[members.length - 1]].map((one) => one.name.split("/")[0]);
    const group = madeScope(first === last ? first : `${first} … ${last}`, parent.path, parent);
    for (const child of members) {
      group.children.set(child.name, child);
      child.parent = group;
      addBytes(group, child.roles);
    }
    groups.push(group);
  }
  return groups;
}

/** The tree to draw: scopes opened down to boxes that can be seen, and these by role. */
function opened(scope, total = scope.bytes, level = 0) {
  const parts = partsOf(scope);
  const isOpen = parts.length && level < MOST_LEVELS
    && (!level || scope.bytes / parts.length >= total * SMALLEST_SHARE);
  const order = Object.keys(ROLE_COLOURS);
  const children = isOpen
    ? parts.map((part) => opened(part, total, level + 1)).sort((a, b) =>
      b.bytes - a.bytes || (asCounted(a.scope.name) < asCounted(b.scope.name) ? -1 : 1))
    : [...scope.roles].map(([role, bytes]) => ({ role, bytes }))
      .sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role));
  return { scope, bytes: scope.bytes, children };
}

function drawMap(section, view) {
  section.append(element("h3", {}, "Bytes by scope"));
  const trail = element("div", { class: "bar", role: "group", "aria-label": "scope" });
  const holder = element("div", { class: "map" });
  section.append(trail, holder);
  const state = remembered("map", { names: [] });
  let current = scopes(view), width = 0;
  for (const name of state.names) {
    const part = partsOf(current).find((one) => one.name === name && one.children.size);
    if (!part) break;
    current = part;
  }
  const zoom = (scope) => {
    current = scope;
    state.names = lineage(scope).slice(1).map((one) => one.name);
    draw();
    const next = holder.querySelector("[tabindex]") || trail.querySelector("button");
    if (next) next.focus({ preventScroll: true });
  };
  function draw() {
    const line = lineage(current);
    trail.replaceChildren(...line.map((scope, depth) => element("button", { type: "button",
      disabled: depth === line.length - 1 ? "" : null, click: () => zoom(scope) },
    scope.name || NAMELESS)), element("span", { class: "dim" }, bytesText(current.bytes)));
    width = holder.clientWidth || 1000;
    holder.replaceChildren(treemap(current, width, zoom));
  }
  draw();
  new ResizeObserver(() => { if (Math.abs(holder.clientWidth - width) > 20) draw(); }).observe(holder);
}

function lineage(scope) {
  const line = [];
  for (let one = scope; one; one = one.parent) line.unshift(one);
  return line;
}

function treemap(scope, width, zoom) {
  const height = 420;
  const root = d3.hierarchy(opened(scope)).sum((node) => (node.children ? 0 : node.bytes));
  d3.treemap().size([width, height]).paddingInner(1).round(true).paddingTop((node) =>
    node.depth && node.children[0].children && node.y1 - node.y0 > 2 * LABEL_HEIGHT ? LABEL_HEIGHT : 0)(root);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", role: "group",
    "aria-label": "bytes by scope" });
  for (const child of root.children) picture.append(box(child, zoom));
  return picture;
}

function box(node, zoom) {
  const size = { x: node.x0, y: node.y0, width: Math.max(0, node.x1 - node.x0),
    height: Math.max(0, node.y1 - node.y0) };
  if (!node.children) return shape("rect", { ...size, fill: colour(node.data.role) });
  const scope = node.data.scope;
  if (!scope) return shape("g");
  const isOpen = Boolean(node.children[0].children);
  const least = isOpen ? 2 * LABEL_HEIGHT + 1 : LABEL_HEIGHT - 1;  // else it would lie on what is inside
  const opens = scope.children.size > 0;
  const name = scope.name || NAMELESS;
  const label = `${name}: ${bytesText(scope.bytes)}`;
  const group = shape("g", {}, shape("title", {}, [scope.path || name,
    ...[...scope.roles].map(([role, bytes]) => `${role}: ${bytesText(bytes)}`)].join("\n")),
  shape("rect", { ...size, class: "frame" }), ...node.children.map((child) => box(child, zoom)));
  const room = Math.floor((size.width - 6) / 7);
  if (room > 4 && size.height >= least) {
    group.append(shape("text", { x: size.x + 4, y: size.y + 12, class: isOpen ? "scope" : null },
      label.length <= room ? label : name.length <= room ? name : `${name.slice(0, room - 1)}…`));
  }
  if (opens) {
    const go = (event) => { event.stopPropagation(); event.preventDefault(); zoom(scope); };
    filled(group, { class: "zoom", click: go });
    if (node.depth === 1) {  // those further down are there once this is
      filled(group, { tabindex: 0, role: "button", "aria-label": `zoom to ${label}`,
        keydown: (event) => { if (event.key === "Enter" || event.key === " ") go(event); } });
    }
  }
  return group;
}

/** Objects as nested details, each filled when it is opened; where an object stands again, its id. */
function objectTree(view) {
  const { children, tensors, classes } = view.objects;
  const data = view.variables;
  const tensorText = (index) => view.dtypes[data.dtype[index]] + view.shapes[data.shape[index]];
  const about = (node) => [classes[node], ...(tensors[node] || []).map((index) =>
    `${tensorText(index)}  ${data.name[index]}`)].filter(Boolean).join("  ");
  const fill = (holder, node, above, start, path) => {
    const edges = children[node];
    for (const [name, child] of edges.slice(start, start + MOST_CHILDREN)) {
      holder.append(make(name, child, above, `${path}/${name}`));
    }
    const more = edges.length - start - MOST_CHILDREN;
    if (more > 0) {
      const button = element("button", { type: "button", class: "leaf", click: () => {
        button.remove();
        fill(holder, node, above, start + MOST_CHILDREN, path);
      } }, `${more.toLocaleString("en")} more`);
      holder.append(button);
    }
  };
  const openPaths = remembered("objects", new Set([""]));
  const make = (name, node, above, path) => {
    const text = [element("bdi", {}, name), " ", element("span", { class: "dim" }, about(node))];
    if (above.includes(node)) {
      return element("div", { class: "leaf" }, ...text, " (a circle)");
    }
    if (!children[node].length) return element("div", { class: "leaf" }, ...text);
    const holder = element("details", { class: above.length ? null : "top" },
      element("summary", {}, ...text));
    let isFilled = false;
    const open = () => {
      if (!isFilled) fill(holder, node, [...above, node], 0, path);
      isFilled = true;
    };
    holder.addEventListener("toggle", () => {
      openPaths[holder.open ? "add" : "delete"](path);
      if (holder.open) open();
    });
    if (openPaths.has(path)) { holder.open = true; open(); }
    return holder;
  };
  return make("root", 0, [], "");
}
