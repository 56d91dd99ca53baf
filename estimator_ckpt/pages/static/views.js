// The other views: mapping, values, changes, a run over time, a table of findings.

// --- mapping ---

const WAY_LINES = {
  structure: "--weight double", name: "--average solid", rule: "--statistic dashed",
};

function drawMapping(section, view) {
  const bad = new Set(view.bad);
  if (view.hint) section.append(element("p", { class: "hint" }, view.hint));
  section.append(element("p", {}, ...Object.entries(view.totals).flatMap(([status, count], index) => [
    index ? ", " : null,
    element("span", { class: bad.has(status) && "bad" }, `${count.toLocaleString("en")} ${status}`)])));
  const ways = [...new Set(view.rows.map((row) => row[5]))].filter(Boolean);
  const hasAlone = view.rows.some((row) => row[6]);
  section.append(element("div", { class: "bar legend" },
    ...ways.map((way) => element("span", {}, element("i", { class: "stroke", style: strokeOf(way) }),
      way in WAY_LINES ? `by ${way}` : way)),
    hasAlone ? element("span", { class: "alone" }, "○ without a partner") : null));
  section.append(pagedTable({
    label: "lines", rows: view.rows, kind: "mapping",
    text: ([status, left, right, note]) => `${status} ${left} ${right} ${note}`,
    choices: [...Object.keys(view.totals).map((status) => [status, (row) => row[0] === status]),
      ...ways.filter((way) => way in WAY_LINES).map((way) => [`by ${way}`, (row) => row[5] === way])],
    columns: [
      { title: view.left, name: true, right: true, cell: (row) => endText(row, row[1]),
        value: (row) => row[1] },
      { title: "by", cell: lineOf, value: (row) => row[5] + row[3] },
      { title: view.right, name: true, cell: (row) => endText(row, row[2]), value: (row) => row[2] },
      { title: "status", cell: (row) => row[0], value: (row) => row[0], bad: (row) => row[6] === "bad" },
    ],
  }));
}

function strokeOf(way) {
  const [name, style] = (WAY_LINES[way] || "--slot solid").split(" ");
  return `border-top: ${style === "double" ? 4 : 2}px ${style} var(${name})`;
}

function endText(row, text) {
  if (!text) return "";
  return element("span", { class: row[6] || null }, longText(text),
    row[4] > 1 ? element("span", { class: "dim" }, ` ×${row[4].toLocaleString("en")}`) : null);
}

/** From the one end to the other, with what it goes by; where an end stands alone, why it does. */
function lineOf([, left, right, note, , way, trouble]) {
  const stroke = () => element("i", { class: "stroke", style: strokeOf(way) });
  const said = note ? element("span", { class: "said" }, longText(note)) : null;
  if (left && right) return element("div", { class: "line" }, stroke(), said, said && stroke());
  return element("div", { class: `line ${trouble} ${left ? "from" : "to"}` },
    element("span", { "aria-hidden": "true" }, "○"), said);
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
    ...[[`A ${view.a}`, "--before"], [`B ${view.b}`, "--after"]].map(([label, name]) =>
      element("span", {}, element("i", { class: "swatch", style: `background: var(${name})` }), label))));
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
          : element("span", { class: "gauge" }, element("i", { style:
            `width: ${(6 * row.relative / most).toFixed(3)}rem` }), number(row.relative)) },
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

const FATES = {
  kept: "fill: var(--weight)", "not in the state file": "fill: var(--slot)",
  deleted: "fill: none; stroke: var(--dim)", missing: "fill: none; stroke: var(--bad)",
};

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
  const fate = (row) => row.there ? (row.kept ? "kept" : "not in the state file")
    : row.kept ? "missing" : "deleted";
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "checkpoints by step; the height is the size" },
  shape("line", { x1: 0, x2: width, y1: 96, y2: 96, style: "stroke: var(--line)" }));
  for (const row of rows) {
    const tall = row.there ? 8 + 70 * (row.bytes || 0) / most : 8;
    picture.append(shape("rect", { x: x(row.step) - 5, y: 96 - tall, width: 10, height: tall,
      style: FATES[fate(row)] }, shape("title", {},
      `${row.name}: ${row.there && row.bytes !== null ? bytesText(row.bytes) : fate(row)}`)));
  }
  for (const [step, anchor] of low < high ? [[low, "start"], [high, "end"]] : [[low, "middle"]]) {
    const place = { start: 0, middle: width / 2, end: width }[anchor];
    picture.append(shape("text", { x: place, y: 114, "text-anchor": anchor }, `step ${number(step)}`));
  }
  const fates = new Set(rows.map(fate));
  section.append(picture, element("div", { class: "bar legend" },
    ...Object.keys(FATES).filter((one) => fates.has(one)).map((one) => element("span", {},
      shape("svg", { width: 12, height: 12, "aria-hidden": "true" },
        shape("rect", { x: 3, y: 1, width: 6, height: 10, style: FATES[one] })), one))));
  const state = (row) => row.problem || (row.newest && row.there ? "newest" : fate(row));
  section.append(pagedTable({
    label: "checkpoints", rows: [...rows].reverse(), text: (row) => row.name, choices: [],
    columns: [
      { title: "checkpoint", name: true, cell: (row) => row.name, value: (row) => row.name },
      { title: "step", right: true, cell: (row) => row.step < 0 ? "" : number(row.step),
        value: (row) => row.step },
      { title: "saved", cell: (row) => row.saved
        ? new Date(row.saved * 1000).toISOString().slice(0, 19).replace("T", " ") : "",
      value: (row) => row.saved || 0 },
      ...rows.every((row) => row.seconds === null) ? [] : [{ title: "took", right: true, cell: (row) => row.seconds === null ? ""
        : `${row.seconds < 10 ? row.seconds.toPrecision(2) : Math.round(row.seconds)} s`, value: (row) => row.seconds ?? -1 }],
      { title: "size", right: true, cell: (row) => row.bytes === null ? "" : bytesText(row.bytes),
        value: (row) => row.bytes || 0 },
      { title: "format", cell: (row) => row.format || "", value: (row) => row.format || "" },
      { title: "state", cell: state, value: state, bad: (row) => Boolean(row.problem)
        || (!row.there && row.kept) },
    ],
  }));
}

function drawTable(section, view) {
  if (view.total) section.append(element("p", {}, view.total));
  section.append(pagedTable({
    label: "findings", rows: view.rows, text: (row) => row.join(" "), choices: [],
    columns: view.headers.map((title, place) => ({ title, cell: (row) => row[place],
      name: place > 0 && place < view.headers.length - 1,  // the last one is a sentence
      value: (row) => row[place], bad: (row) => place === 0 && view.bad.includes(row[0]) })),
  }));
}
