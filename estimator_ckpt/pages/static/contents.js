// The view of a checkpoint: its bytes by scope, its variables, its objects.

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
