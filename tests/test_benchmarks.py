"""What benchmarks/run.py counts: turns, medians, ratios, growth, and what it says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import measuring
    import showing

    yield measuring, showing
    for name in ("measuring", "showing"):
        del sys.modules[name]


def test_ways_take_turns_and_medians_count(modules: Any) -> None:
    measuring, showing = modules
    order = []
    seconds = {"stock": [4.0, 2.0, 2.0], "ours": [1.0, 1.0, 3.0], "cat": [0.5, 0.5, 0.5]}
    times = {name: iter(column) for name, column in seconds.items()}

    def way(name: str) -> Any:
        def run() -> float:
            order.append(name)
            return next(times[name])

        return run

    case = measuring.Case("verify", {name: way(name) for name in seconds}, "cat", 2_000_000, 30)
    result = measuring.run_case(case, 3)
    assert order == ["stock", "ours", "cat", "cat", "ours", "stock", "stock", "ours", "cat"]
    assert result.seconds == seconds
    assert (result.median("stock"), result.median("ours")) == (2.0, 1.0)
    assert result.ratio("ours") == 0.5  # of 0.25, 0.5 and 1.5
    assert list(showing.table(result)) == [
        "verify   (30 variables, 2 MB)",
        "  stock                     2.00 s    2.00 s                   4x cat",
        "  ours                      1.00 s    1.00 s   0.50x stock     2x cat",
        "  (cat)                     500 ms    500 ms",
    ]
    found = json.loads(json.dumps(result.as_json()))
    assert found["ratios"] == {"stock": 1.0, "ours": 0.5, "cat": 0.25}
    assert measuring.Result.from_json(found) == result


@pytest.mark.parametrize(
    ("seconds", "exponent", "note"),
    [((1.0, 2.0, 4.0), 1.0, ""), ((1.0, 1.0, 4.0), 2.0, "   more than linear")],
)
def test_growth(modules: Any, seconds: tuple[float, ...], exponent: float, note: str) -> None:
    measuring, showing = modules
    results = [
        measuring.Result("verify", {"stock": [9.0], "ours": [took]}, "", nbytes, 3, "bytes", {})
        for nbytes, took in zip((10, 20, 40), seconds)
    ]
    (one,) = showing.growth(results[::-1])
    assert (one["sizes"], one["seconds"], one["exponent"]) == ([10, 20, 40], [*seconds], exponent)
    (line,) = showing.growth_table(results)
    assert line.endswith(f"{exponent}   " + " -> ".join(f"{s:.2f} s" for s in seconds) + note)
