"""Rewrites tests/data/conventions.tsv: what OpenTelemetry's semantic conventions name, for a test of what we emit.

Read from the Python package that OpenTelemetry generates from its model, because that is what a package registry
serves; nothing of it is kept but names, instruments and units. `make conventions` calls it; it needs pip and a network.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "opentelemetry-semantic-conventions==0.66b2"
TABLE = Path(__file__).resolve().parents[1] / "data" / "conventions.tsv"
# A constant, and the text under it, which says what it is, and whether it is of the past.
CONSTANT = re.compile(r'^[A-Z0-9_]+: Final = (?:\(\s*)?"([a-z0-9_.]+)"\s*\)?\n"""\n(.*?)\n"""', re.MULTILINE | re.DOTALL)
INSTRUMENT = re.compile(r"^Instrument: (\w+)$", re.MULTILINE)
UNIT = re.compile(r"^Unit: (\S+)$", re.MULTILINE)
VERSION = re.compile(r"https://opentelemetry\.io/schemas/(\d+)\.(\d+)\.(\d+)")


# The conventions for generative AI went to a repository of their own, and the package calls that deprecated. It still has them, without
# instrument and unit in the text, but as they are created.
MOVED = "Deprecated: Moved to the [OpenTelemetry GenAI semantic conventions repository]"
CREATED = r"meter\.create_(\w+)\(\s*name={constant},\s*description=.*?,\s*unit=\"([^\"]+)\""


def named(text: str) -> Iterator[tuple[str, str]]:
    """The names that are no longer of the past, each with what is said of it."""
    for found in CONSTANT.finditer(text):
        if found[2].startswith(MOVED) or not found[2].startswith("Deprecated"):
            yield found[1], found[2]


def instrument(name: str, about: str, text: str) -> tuple[str, str]:
    """The instrument of a metric and its unit."""
    if found := INSTRUMENT.search(about):
        return found[1], UNIT.search(about)[1]
    constant = name.upper().replace(".", "_")
    created = re.search(CREATED.format(constant=constant), text, re.DOTALL)
    return created[1].replace("up_down_", "updown"), created[2]


def rows(package: zipfile.ZipFile) -> set[tuple[str, ...]]:
    """The lines of the table: `attribute NAME` and `metric NAME INSTRUMENT UNIT`."""
    found: set[tuple[str, ...]] = set()
    for file in package.namelist():
        if file.endswith("_attributes.py"):
            found.update(("attribute", name) for name, _ in named(package.read(file).decode()))
        elif file.endswith("_metrics.py"):
            text = package.read(file).decode()
            for name, about in named(text):
                found.add(("metric", name, *instrument(name, about, text)))
    return found


def main() -> None:
    """Fetches the package, and writes the table."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as package:
            table = sorted(rows(package))
            schemas = package.read("opentelemetry/semconv/schemas.py").decode()
    version = ".".join(max(VERSION.findall(schemas), key=lambda parts: tuple(map(int, parts))))
    head = [
        f"# OpenTelemetry semantic conventions {version}, names only: `make conventions` writes this file",
        f"# from {PACKAGE} (PyPI), Copyright The OpenTelemetry Authors, Apache-2.0",
    ]
    TABLE.write_text("\n".join(head + ["\t".join(row) for row in table]) + "\n")
    print(f"{TABLE.name}: {len(table)} names of {version}")


if __name__ == "__main__":
    main()
