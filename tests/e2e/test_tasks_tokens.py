"""The Python client where the sidecar asks for a token: it shows the right one, learns of a new one, and tells none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from factory import Application
from processes import ROOT
from sidecar import Sidecar
from waiting import eventually

SOURCES = ROOT / "clients/python/src"
TASKS = "/api/v1/monitoring/tasks"
READER, WRITER, NEXT = "reader-0123456789abcdef", "writer-0123456789abcdef", "writer-fedcba9876543210"

SCRIPT = """if True:
    import content_factory_sidecar as client
    for name in {names}:
        with client.TaskMonitor(name{arguments}):
            pass
        assert client.flush(20)
    print(client.dropped())
"""


def guarded(start_sidecar: SidecarMaker, application: Application, collector: FileCollector, file: Path) -> Sidecar:
    """A sidecar that lets in whom this file names."""
    admin = {"listen": "127.0.0.1:0", "tokens_file": str(file)}
    return start_sidecar(behind(application, collector) | {"admin": admin}, QUICK_EXPORT)


def run(arguments: str, environment: dict[str, str], names: tuple[str, ...] = ("task",)) -> str:
    """Runs tasks of these names in a process of their own; what it printed."""
    settings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    script = SCRIPT.format(names=names, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def told(sidecar: Sidecar, token: str) -> dict[str, Any]:
    """What the sidecar knows of tasks, for a reader."""
    return httpx.get(sidecar.admin + TASKS, headers={"Authorization": f"Bearer {token}"}).raise_for_status().json()


def test_a_token_is_shown_however_it_is_given_and_a_wrong_one_is_refused(
    tmp_path: Path, start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    file = tmp_path / "tokens"
    file.write_text(f"{READER}\n{WRITER} write\n")
    sidecar = guarded(start_sidecar, application, collector, file)
    own = tmp_path / "own"
    own.write_text(f"{WRITER}\n")
    url = {"SIDECAR_URL": sidecar.admin}
    assert run(f", token={WRITER!r}", url) == "0"
    assert run(f", token_file={str(own)!r}", url) == "0"
    assert run("", url | {"SIDECAR_TOKEN": WRITER}) == "0"
    assert run("", url | {"SIDECAR_TOKEN_FILE": str(own)}) == "0"
    # its beginning and its end
    assert run(", token='nobody-0123456789abcdef'", url) == "2"
    assert run(", token_file='/nowhere'", url) == "2"
    assert run(", token='two\\r\\nlines: x'", url) == "2"
    assert told(sidecar, READER)["succeeded"] == 4


def test_a_token_that_is_replaced_is_read_again_from_its_file(
    tmp_path: Path, start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    file = tmp_path / "tokens"
    file.write_text(f"{WRITER} write\n")
    sidecar = guarded(start_sidecar, application, collector, file)
    script = f"""if True:
        import sys
        import content_factory_sidecar as client
        for line in sys.stdin:
            with client.TaskMonitor(line.strip(), url={sidecar.admin!r}, token_file={str(file)!r}):
                pass
            print(client.flush(20), client.dropped(), flush=True)
    """
    settings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES), "PYTHONDONTWRITEBYTECODE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": settings}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:

        def task(name: str) -> str:
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert task("before") == "True 0"
        file.write_text(f"{NEXT} write\n")
        headers = {"Authorization": f"Bearer {NEXT}"}
        eventually(lambda: httpx.get(sidecar.admin + TASKS, headers=headers).status_code == 200, "the new token to count")
        assert task("after") == "True 0"
        process.stdin.close()
        assert process.wait(20) == 0
    assert [task["name"] for task in told(sidecar, NEXT)["recent"]] == ["after", "before"]


def test_no_representation_of_what_is_kept_tells_a_token():
    sys.path.insert(0, str(SOURCES))
    from content_factory_sidecar import _courier

    kept = _courier.Pass(WRITER, "/a/file")
    courier = _courier.Courier("http://127.0.0.1:1", kept)
    assert WRITER not in f"{kept} {kept!r} {courier} {courier!r}"
