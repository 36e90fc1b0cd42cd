"""What the Dockerfile promises, read from its text: no container engine is needed to run this."""

from __future__ import annotations

import json
import re

from chart import ROOT


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


def test_the_build_sees_only_what_the_binary_is_made_from():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {"!Cargo.toml", "!Cargo.lock", "!LICENSE", "!src"} <= set(lines)
    assert not [line for line in lines if "target" in line or ".git" in line]
