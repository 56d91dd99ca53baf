// The tab of TensorBoard: chooses a run, a checkpoint and one to compare with; asks for the views.

const REFRESH = 10000;
const NEWEST = "";

async function ask(name, query = {}) {
  const url = new URL(`./${name}`, import.meta.url);
  url.search = new URLSearchParams(query);
  const answer = await fetch(url);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

/** TensorBoard does not tell the frame its theme; the frame can see the page around it. */
function themeAround() {
  try {
    return window.parent.document.body.classList.contains("dark-mode") ? "dark" : "light";
  } catch (error) {
    return undefined;
  }
}

/** What TensorBoard calls when the tab is opened. */
export async function render() {
  document.head.append(element("style", {}, STYLE));
  const run = element("select", { "aria-label": "run" });
  const checkpoint = element("select", { "aria-label": "checkpoint" });
  const before = element("select", { "aria-label": "compare with" });
  const values = element("button", { type: "button" }, "Read values");
  const message = element("p", { role: "status", class: "dim" });
  const page = element("main");
  const head = element("header", { class: "ckpt" }, element("div", { class: "bar" }, "Run", run,
    "Checkpoint", checkpoint, values, "Compare with", before), message);
  document.body.replaceChildren(head, page);
  let runs = [], shown = "", drawn = "", base = [], more = {}, failed = false;

  const theme = () => {
    const name = themeAround();
    for (const part of [head, page]) part.classList.toggle("dark", name === "dark");
    return name;
  };
  const optionsOf = (select, pairs) => {
    const text = JSON.stringify(pairs);
    if (select.dataset.pairs === text) return;  // a menu that is open stays so
    select.dataset.pairs = text;
    const kept = select.value;
    select.replaceChildren(...pairs.map(([value, label]) => element("option", { value }, label)));
    if (pairs.some(([value]) => value === kept)) select.value = kept;
  };
  const current = () => runs.find((one) => one.run === run.value) || runs[0];
  const chosen = () => {
    const names = current().checkpoints;
    return checkpoint.value === NEWEST ? names[names.length - 1] : checkpoint.value;
  };
  function fill() {
    optionsOf(run, runs.map((one) => [one.run, one.run]));
    const names = current() ? [...current().checkpoints].reverse() : [];
    optionsOf(checkpoint, [[NEWEST, "the newest"], ...names.map((name) => [name, name])]);
    optionsOf(before, [["", "nothing"], ...runs.flatMap((one) => [...one.checkpoints].reverse()
      .map((name) => [JSON.stringify([one.run, name]), `${one.run}: ${name}`]))]);
  }
  const fail = (error) => {
    failed = true;
    message.textContent = error.message;
  };
  const draw = () => drawViews(page, base.length && more.key === drawn ? [...base, ...more.views] : base,
    theme());
  /** `again`: what is shown could not be read. `follows`: nobody chose, a job has gone on. */
  async function show({ again = false, follows = false } = {}) {
    if (!current() || !chosen()) {
      shown = "";
      message.textContent = "No checkpoints below the logdir yet.";
      page.replaceChildren();
      return;
    }
    const query = { run: current().run, checkpoint: chosen() };
    const key = JSON.stringify([query, before.value]);
    if (key === shown && !again) return;
    shown = key;
    message.textContent = `reading ${query.checkpoint} …`;
    const other = before.value && JSON.parse(before.value);
    const views = [];
    const replace = () => { base = views; drawn = key; draw(); };
    try {
      views.push(...await ask("contents", query));
      if (shown !== key) return;
      if (!follows || !page.firstChild) replace();  // the rest takes longer
      views.push(...await ask("job", { run: query.run }));
      if (other && shown === key) {
        message.textContent = "comparing …";
        views.unshift(...await ask("changes", { ...query, before_run: other[0], before: other[1] }));
      }
      if (shown === key) message.textContent = "";
    } catch (error) {
      if (shown === key) fail(error);
    }
    if (shown === key) replace();
  }
  async function refresh() {
    try {
      runs = await ask("runs");
      fill();
      const again = failed;
      failed = false;
      await show({ again, follows: true });
    } catch (error) {
      fail(error);
    }
    setTimeout(refresh, REFRESH);  // behind the answer: a large logdir takes a while to walk
  }
  for (const select of [run, checkpoint, before]) {
    select.addEventListener("change", () => { fill(); show(); });
  }
  values.addEventListener("click", async () => {
    const key = shown;
    if (!key) return;
    message.textContent = "reading all values …";
    try {
      const found = await ask("values", { run: current().run, checkpoint: chosen() });
      if (key !== shown) return;
      more = { key, views: found };
      message.textContent = "";
      draw();
      const section = page.querySelector('[data-view="values"]');
      if (section) section.scrollIntoView();
    } catch (error) {
      if (key === shown) message.textContent = error.message;
    }
  });
  try {
    new MutationObserver(theme).observe(window.parent.document.body, { attributeFilter: ["class"] });
  } catch (error) {
    // Another origin's page is around: the theme stays as it is.
  }
  theme();
  await refresh();
}
