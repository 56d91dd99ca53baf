#!/usr/bin/env python3
"""Makes docs/assets/three_acts.svg anew, a picture of what the README's first command prints.

Run it by .venv/bin/python .ci/picture.py.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

from rich.console import Console
from rich.text import Text

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMAND = "python -m estimator_ckpt.examples.digits --flagfile=configs/digits.flags"

done = subprocess.run(
    [sys.executable, *COMMAND.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
)
console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
console.print(Text("$ ", style="green bold") + Text(COMMAND, style="bold"))
for line in done.stdout.rstrip().splitlines():
    console.print(Text(line, style="cyan bold" if re.match(r"\S.*:$|\d\.|act", line) else ""))
svg = console.export_svg(title="A TF1 job goes on in TF2 checkpoints")
# Nothing is fetched from elsewhere.
svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
(ROOT / "docs" / "assets" / "three_acts.svg").write_text(svg, encoding="utf-8")
