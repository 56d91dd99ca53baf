"""The site of the docs: it builds without a warning, is complete, and is found by its words."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

import estimator_ckpt
from estimator_ckpt import cli

ROOT = Path(__file__).resolve().parents[1]
DOCS, SITE = ROOT / "docs", ROOT / "site"

pytestmark = pytest.mark.site


@pytest.fixture(scope="module", autouse=True)
def built() -> str:
    """What a strict build prints; an error or a warning of Zensical's ends it with 1."""
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Page(html.parser.HTMLParser):
    """The links, the anchors and what is loaded of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(values["href"])


def test_nothing_of_the_api_is_described_wrongly(built: str) -> None:
    assert "griffe" not in built
    assert "No issues found" in built


def test_every_page_is_reached_by_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = re.findall(r"([\w/]+\.md)$", nav.partition("\n\n")[0], flags=re.MULTILINE)
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_every_link_leads_to_a_page_and_an_anchor() -> None:
    pages = {path: Page(path) for path in SITE.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 5
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme:
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = urllib.parse.unquote(url.fragment)
            if not target.exists() or (anchor and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in SITE.rglob("*.html"):
        assert [one for one in Page(path).loaded if "//" in one] == []


def test_every_public_name_is_described_once() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    described = re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)
    assert len(described) == len(set(described))
    own = re.findall(r"^::: estimator_ckpt\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(own) == sorted([*estimator_ckpt.__all__, "errors"])


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_reference_of_the_command_has_each_flag_of_a_verb(verb: str) -> None:
    text = (SITE / "reference" / "verbs" / "index.html").read_text(encoding="utf-8")
    section = text.partition(f'<h2 id="{verb}">')[2].partition("<h2 ")[0]
    shown = re.findall(r"<td><code>--(?:\[no\])?(\w+)[^<]*</code></td>", section)
    values = cli.flags_of(verb)
    assert sorted(shown) == sorted(name for name in values if values[name].name == name)


# --- the search ---


class Search:
    """The search of the site: its own script, over its own index."""

    def __init__(self) -> None:
        import quickjs

        (script,) = SITE.glob("assets/javascripts/workers/search.*.js")
        index = (SITE / "search.json").read_text(encoding="utf-8")
        self._items = json.loads(index)["items"]
        self._context = quickjs.Context()
        self._context.eval("var answers = []; var self = {postMessage: m => answers.push(m)};")
        self._context.eval(script.read_text(encoding="utf-8"))
        self._send(0, index)

    def pages(self, text: str) -> list[str]:
        """The pages of the first three things found."""
        (answer,) = self._send(2, json.dumps({"input": text}))
        found = [self._items[one["id"]]["location"] for one in answer["data"]["items"]]
        return [location.partition("/")[0] for location in found[:3]]

    def _send(self, kind: int, data: str) -> list[dict]:
        self._context.eval("answers.length = 0")
        self._context.eval(f"self.onmessage({{data: {{type: {kind}, data: {data}}}}}); 0")
        while self._context.execute_pending_job():
            pass
        return json.loads(self._context.eval("JSON.stringify(answers)"))


@pytest.fixture(scope="module")
def search(built: str) -> Search:
    return Search()


def test_a_search_finds_what_is_there_and_nothing_else(search: Search) -> None:
    assert search.pages("float8_e5m2fnuz")[0] == "exchange"
    assert search.pages("xyzzyqwv") == []


@pytest.mark.parametrize(
    "message",
    [
        "Key dense/kernel not found in checkpoint",
        "Key step/.ATTRIBUTES/VARIABLE_VALUE not found in checkpoint",
        "Graph is finalized and cannot be modified.",
        "Graph is finalized",
        "Key _CHECKPOINTABLE_OBJECT_GRAPH not found in checkpoint",
        "_CHECKPOINTABLE_OBJECT_GRAPH not found",
        "Found 1 Python objects that were not bound to checkpointed values, likely due to",
        "not bound to checkpointed values",
        "Existing variables not in the checkpoint",
        "Attempting to use uninitialized value",
        "Unresolved object in checkpoint",
        "Some objects had attributes which were not restored",
        "Tensor dense/kernel is not found in",
        "Could not find some variables in the checkpoint (see names above)",
        "The passed save_path is not a valid checkpoint",
        "Assign requires shapes of both tensors to match",
        "Received incompatible tensor with shape",
        "keep_checkpoint_max ignored",
        "keep_checkpoint_max is ignored",
        "moved model_dir",
        "another optimizer",
        "averages not found in checkpoint",
        "bigger vocabulary",
        "another number of partitions",
        "does not fit this name-based checkpoint",
    ],
)
def test_a_message_leads_to_the_page_of_errors(search: Search, message: str) -> None:
    """Typed as it is; and without what the search of other sites takes for operators."""
    assert "errors" in search.pages(message)
    assert "errors" in search.pages(re.sub(r"[:^~*+-]", " ", message))


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("track_tf1_style_variables", "load_tf1_in_tf2"),
        ("half migrated layers", "load_tf1_in_tf2"),
        ("init_from_checkpoint object path assignment map", "load_tf2_in_tf1"),
        ("the order of a list", "changing_the_model"),
        ("get_variable to tf.Variable", "changing_the_model"),
        ("CheckpointManager TF1 readers", "both_while_training"),
        ("load_weights ModelCheckpoint", "keras"),
        ("weights.h5", "keras"),
        ("scaffold_fn TPUEstimator", "running"),
        ("Horovod", "running"),
        ("MonitoredTrainingSession without Estimator", "running"),
        ("VARIABLE_VALUE", "two_kinds"),
        ("save_counter", "two_kinds"),
    ],
)
def test_words_lead_to_their_page(search: Search, words: str, page: str) -> None:
    assert page in search.pages(words)
