"""The description that the package's page on an index shows: the README, without relative links.

All else of the package is in pyproject.toml. An index does not have the files that the README links
to, so links are made absolute; or the text alone stays, as long as there is no address.
"""

import re
from pathlib import Path

from setuptools import setup

# Where the files of the repository can be read in a browser, ending in "/"; "" as long as nowhere.
ADDRESS = ""

_LINK = re.compile(r"(!?)\[((?:[^\[\]])*)\]\((?!\w+:)([^()\s]+)\)")


def described(readme: str, address: str) -> str:
    """The README as an index can show it."""

    def absolute(link: "re.Match[str]") -> str:
        picture, text, target = link.groups()
        if address:
            return f"{picture}[{text}]({address}{target})"
        return "" if picture else text

    return _LINK.sub(absolute, readme)


if __name__ == "__main__":
    setup(
        long_description=described(Path("README.md").read_text(encoding="utf-8"), ADDRESS),
        long_description_content_type="text/markdown",
        project_urls={"Source": ADDRESS} if ADDRESS else {},
    )
