// The other views: mapping, values, changes, a run over time, a table of findings.

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
