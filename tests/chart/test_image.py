"""What the Dockerfile promises, read from its text: no container engine is needed to run this."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from chart import ROOT

# Of the binary of the profile `release`, with its symbols, whose names are long (`.cargo/config.toml`); the one of the image, which
# is a third smaller, and the certificates are all that is in it.
MOST_BINARY_BYTES = 32 << 20


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def last_stage() -> list[tuple[str, str]]:
    """The instructions of the image that is shipped."""
    found = instructions()
    return found[max(number for number, (name, _) in enumerate(found) if name == "FROM") :]


def setting(wanted: str) -> str:
    """The arguments of an instruction that stands once in the last stage."""
    [arguments] = [arguments for name, arguments in last_stage() if name == wanted]
    return arguments


def test_the_image_starts_from_nothing_and_runs_nothing_while_it_is_built():
    assert setting("FROM") == "scratch"
    assert "RUN" not in [name for name, _ in last_stage()]


def test_the_image_runs_as_a_number_that_is_not_root():
    assert setting("USER") == "65532:65532"


def test_the_image_starts_the_binary_without_a_shell():
    assert json.loads(setting("ENTRYPOINT")) == ["/content-factory-sidecar"]
    assert json.loads(setting("CMD")) == ["run"]


def test_the_data_folder_belongs_to_the_user_of_the_image():
    [folder] = re.findall(r"SIDECAR_DATA_DIR=(\S+)", setting("ENV"))
    owners = [arguments for name, arguments in last_stage() if name == "COPY" and arguments.endswith(f" {folder}/")]
    assert len(owners) == 1 and "--chown=65532:65532" in owners[0]


def test_the_binary_is_the_locked_static_one_of_the_dist_profile():
    [build] = [arguments for name, arguments in instructions() if name == "RUN"]
    for part in ("--locked", "--profile dist", "+crt-static", "--target"):
        assert part in build
    assert "[profile.dist]" in (ROOT / "Cargo.toml").read_text()


def test_the_compiler_is_the_one_that_the_package_asks_for():
    asked = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    [compiler] = [arguments for name, arguments in instructions() if name == "FROM" and arguments != "scratch"]
    assert compiler.startswith(f"rust:{asked}-")


def admitted() -> list[str]:
    """What .dockerignore lets the build see: nothing but these files and folders of the top."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    names = [re.fullmatch(r"!([\w.-]+)", line)[1] for line in lines[1:]]
    assert {"target", ".git"}.isdisjoint(names)
    return names


def binary() -> Path:
    """The binary that the tests try; beside it lies the list of files that cargo made it from."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / profile / "content-factory-sidecar" for profile in ("release", "debug")]
    chosen = os.environ.get("SIDECAR_BIN") or next((path for path in built if path.is_file()), None)
    assert chosen, f"found no sidecar in {target}, expected one: run cargo build --release, or set SIDECAR_BIN"
    return Path(chosen)


def test_the_build_sees_every_file_that_the_binary_is_made_from():
    listing = binary().with_name("content-factory-sidecar.d")
    assert listing.is_file(), f"found no {listing}, expected what cargo build leaves beside the binary"
    _, made_from = listing.read_text().split(": ", 1)
    files = [Path(name.replace("\0", " ")) for name in made_from.replace("\\ ", "\0").split()]
    tops = {file.relative_to(ROOT).parts[0] for file in files if file.is_relative_to(ROOT)}
    assert "src" in tops, "these are the files of another tree"
    assert tops <= set(admitted())


def test_cargo_takes_the_package_as_the_build_sees_it(tmp_path: Path):
    for name in admitted():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    versions = subprocess.run(["rustc", "--version", "--verbose"], capture_output=True, text=True, check=True).stdout
    host = re.search(r"^host: (\S+)$", versions, re.MULTILINE)[1]
    # reads manifest, targets and lock file as a build does, where `cargo metadata` lets a missing target pass; compiles nothing
    command = ["cargo", "fetch", "--offline", "--locked", "--target", host]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_every_file_that_the_build_installs_is_one_that_it_sees():
    [build] = [arguments for name, arguments in instructions() if name == "RUN"]
    sources = re.findall(r"install -D --mode=\d+ \"?([^\"\s]+)", build)
    assert [name for name in sources if not name.startswith(("/", "target/"))] == ["LICENSE"]
    assert "LICENSE" in admitted()


def test_the_image_is_small():
    if "debug" in binary().parts:
        pytest.skip("a debug build tells nothing of the size: run cargo build --release")
    size = binary().stat().st_size
    assert size < MOST_BINARY_BYTES, f"{size / (1 << 20):.1f} MiB"
    copied = [arguments for name, arguments in last_stage() if name in ("COPY", "ADD")]
    assert [arguments.split()[-1] for arguments in copied] == ["/", "/var/lib/content-factory-sidecar/"]
