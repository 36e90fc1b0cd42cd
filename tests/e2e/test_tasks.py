"""The Python client of clients/python against the real sidecar: what it tells, and that it never harms who uses it."""

from __future__ import annotations

import ast
import asyncio
import importlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from factory import Application, CeleryWorker
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from processes import ROOT, free_port
from servers import Postgres, Redis
from sidecar import Sidecar
from waiting import eventually

SOURCES = ROOT / "clients/python/src"
FILES = sorted((SOURCES / "content_factory_sidecar").glob("*.py"))
TASKS = "/api/v1/monitoring/tasks"
INTERNAL = 1
NEWEST = (3, 13)

sys.path.insert(0, str(SOURCES))
client = importlib.import_module("content_factory_sidecar")
TaskMonitor = client.TaskMonitor


def interpreters() -> list[str]:
    """Every Python from 3.9 to 3.13 on this machine, with the one that runs the tests."""
    seen, found = {sys.version_info[:2]}, [sys.executable]
    folders = [*map(Path, os.environ["PATH"].split(":")), *Path.home().glob(".pyenv/versions/*/bin")]
    for minor in range(9, NEWEST[1] + 1):
        for program in (folder / f"python3.{minor}" for folder in folders):
            if (3, minor) not in seen and program.is_file() and "shims" not in program.parts:
                seen.add((3, minor))
                found.append(str(program))
    return found


def told(sidecar: Sidecar) -> dict[str, Any]:
    """What the sidecar knows, once all that was said in this process is told."""
    assert client.flush(10)
    return sidecar.json(TASKS)


def ended(page: dict[str, Any]) -> Counter[tuple[str, str, str | None]]:
    """Name, state and class of each task that has ended."""
    return Counter((task["name"], task["state"], task["error_type"]) for task in page["recent"])


def run(script: str, environment: dict[str, str], python: str = sys.executable) -> str:
    """Runs a script that uses the client to its end, and returns what it printed."""
    settings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run([python, "-c", script], env=settings, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_monitor_of_the_guide_counts_a_task_while_it_runs_and_when_it_has_ended(sidecar: Sidecar):
    async def generate() -> None:
        async with TaskMonitor("video_generation", url=sidecar.admin) as monitor:
            assert isinstance(monitor, TaskMonitor)
            running = told(sidecar)["running"]
            assert [task["name"] for task in running] == ["video_generation"]
            assert sidecar.json("/api/v1/monitoring/metrics")["active_tasks"] == 1
            assert sidecar.json("/api/v1/monitoring/dashboard")["activity"]["active_tasks"] == 1

    asyncio.run(generate())
    page = told(sidecar)
    assert (page["active_tasks"], page["begun"], page["succeeded"]) == (0, 1, 1)
    assert ended(page) == {("video_generation", "succeeded", None): 1}
    assert sidecar.metric("content_factory_tasks_duration_seconds_count", task="video_generation", state="succeeded") == 1


def test_it_works_around_any_code_and_around_functions(sidecar: Sidecar):
    with TaskMonitor("plain", url=sidecar.admin):
        pass

    @TaskMonitor("function", url=sidecar.admin)
    def add(left: int, right: int) -> int:
        """Adds."""
        return left + right if left == 0 else add(left - 1, right + 1)

    @TaskMonitor("coroutine", url=sidecar.admin)
    async def add_later(left: int, *, right: int) -> int:
        await asyncio.sleep(0)
        return left + right

    async def many() -> list[int]:
        return await asyncio.gather(*(add_later(number, right=1) for number in range(10)))

    assert (add(2, 3), add.__name__, add.__doc__) == (5, "add", "Adds.")
    assert asyncio.run(many()) == list(range(1, 11))
    assert ended(told(sidecar)) == {
        ("plain", "succeeded", None): 1,
        ("function", "succeeded", None): 3,
        ("coroutine", "succeeded", None): 10,
    }


def test_an_exception_goes_on_and_only_its_class_is_told(sidecar: Sidecar):
    secret = "a-secret-of-the-exception"

    @TaskMonitor("decorated", url=sidecar.admin)
    async def fails() -> None:
        raise httpx.ConnectError(secret)

    with pytest.raises(ValueError, match=secret), TaskMonitor("plain", url=sidecar.admin):
        raise ValueError(secret)
    with pytest.raises(httpx.ConnectError, match=secret):
        asyncio.run(fails())
    with TaskMonitor("told", url=sidecar.admin) as monitor:
        monitor.fail("RendererError")
    page = told(sidecar)
    assert ended(page) == {
        ("plain", "failed", "ValueError"): 1,
        ("decorated", "failed", "httpx.ConnectError"): 1,
        ("told", "failed", "RendererError"): 1,
    }
    assert sidecar.json("/api/v1/monitoring/metrics")["error_count"] == 3
    for path in (TASKS, "/dashboard", "/metrics"):
        assert secret not in sidecar.text(path), path


def test_a_class_without_a_name_that_could_be_told_is_told_as_other(sidecar: Sidecar):
    strange = type("not a name", (Exception,), {})
    with pytest.raises(strange), TaskMonitor("strange", url=sidecar.admin):
        raise strange
    assert ended(told(sidecar)) == {("strange", "failed", "_OTHER"): 1}


def test_what_cannot_be_told_of_a_task_is_left_out_and_the_task_is_told(sidecar: Sidecar):
    before = client.dropped()
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nHost: evil"
    with TaskMonitor("n" * 200, url=sidecar.admin, traceparent=header) as monitor:
        monitor.fail("a text instead of a class")
    page = told(sidecar)
    assert ended(page) == {("n" * 100, "failed", "_OTHER"): 1}
    assert (page["recent"][0]["trace_id"], client.dropped() - before) == (None, 0)


def test_a_task_belongs_to_the_current_span_or_to_the_one_that_it_is_given(sidecar: Sidecar, collector: FileCollector):
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        context = span.get_span_context()
        with TaskMonitor("in a span", url=sidecar.admin):
            pass
    assert not trace.get_current_span().get_span_context().is_valid
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with TaskMonitor("given", url=sidecar.admin, traceparent=given):
        pass
    with TaskMonitor("in none", url=sidecar.admin):
        pass
    expected = {"in a span": f"{context.trace_id:032x}", "given": given[3:35], "in none": None}
    assert {task["name"]: task["trace_id"] for task in told(sidecar)["recent"]} == expected
    spans = eventually(lambda: len(found := collector.exported.spans(INTERNAL)) >= 2 and found, "two spans")
    assert {(span.name, span.trace_id, span.parent_id) for span in spans} == {
        ("in a span", f"{context.trace_id:032x}", f"{context.span_id:016x}"),
        ("given", given[3:35], given[36:52]),
    }


def test_without_a_sidecar_nothing_fails_and_what_is_not_told_is_counted():
    before = client.dropped()
    url = f"http://127.0.0.1:{free_port()}"
    for _ in range(200):
        with TaskMonitor("nobody listens", url=url):
            pass
    assert client.flush(10)
    # each beginning; an end too, unless its beginning was dropped at once
    assert 200 <= client.dropped() - before <= 400


def test_a_sidecar_that_never_answers_makes_nobody_wait():
    """Told one after the other, these would take an hour and a half."""
    script = """if True:
        import content_factory_sidecar as client
        done = 0
        for _ in range(5_000):
            with client.TaskMonitor("not heard"):
                done += 1
        print(done, client.dropped() > 3_000)
    """
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(16)
        said = run(script, {"SIDECAR_URL": f"http://127.0.0.1:{hole.getsockname()[1]}"})
    assert said.split() == ["5000", "True"]


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:port", "http://[::1"])
def test_an_address_that_is_none_harms_nobody(url: str):
    script = """if True:
        import content_factory_sidecar as client
        with client.TaskMonitor("lost"):
            print("done")
        assert client.flush(10) and client.dropped() == 1
    """
    assert run(script, {"SIDECAR_URL": url}) == "done\n"


def test_whatever_answers_in_a_sidecars_place_harms_nobody():
    answers = [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\n\r\n", b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n[]"]
    answers += [b'HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\n{"id":5}', b"HTTP/1.1 500 x\r\nContent-Length: 9999999\r\n\r\nx"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)

        def serve() -> None:
            for number in range(10_000):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answers[number % len(answers)])

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        script = """if True:
            import content_factory_sidecar as client
            import content_factory_sidecar._courier as courier
            courier.PAUSE_SECONDS = 0
            for _ in range(30):
                with client.TaskMonitor("misunderstood"):
                    pass
            assert client.flush(30)
            print("done")
        """
        assert run(script, {"SIDECAR_URL": url}) == "done\n"
        listener.shutdown(socket.SHUT_RDWR)
        server.join(10)


def test_each_process_of_a_fork_tells_its_own_tasks_once(sidecar: Sidecar):
    script = """if True:
        import os
        import content_factory_sidecar as client
        def task(name):
            with client.TaskMonitor(name):
                pass
        task("parent before")
        both = client.TaskMonitor("both")
        both.__enter__()
        children = []
        for number in range(3):
            pid = os.fork()
            if pid == 0:
                task("child")
                both.__exit__(None, None, None)
                assert client.flush(20)
                os._exit(client.dropped())
            children.append(pid)
        task("parent after")
        both.__exit__(None, None, None)
        print([os.waitpid(pid, 0)[1] for pid in children], client.flush(20), client.dropped())
    """
    environment = {"SIDECAR_URL": sidecar.admin}
    # of 3.12 and later, which warn of a fork beside threads
    assert run(script, environment | {"PYTHONWARNINGS": "ignore::DeprecationWarning"}) == "[0, 0, 0] True 0\n"
    page = sidecar.json(TASKS)
    assert ended(page) == {
        ("parent before", "succeeded", None): 1,
        ("child", "succeeded", None): 3,
        ("parent after", "succeeded", None): 1,
        ("both", "succeeded", None): 1,
    }
    assert (page["begun"], page["active_tasks"]) == (6, 0)


def test_the_end_of_a_process_tells_what_is_left(sidecar: Sidecar):
    script = """if True:
        from content_factory_sidecar import TaskMonitor
        for _ in range(50):
            with TaskMonitor("quick"):
                pass
    """
    run(script, {"SIDECAR_URL": sidecar.admin})
    assert ended(sidecar.json(TASKS)) == {("quick", "succeeded", None): 50}


def test_a_connection_that_the_sidecar_has_closed_is_replaced(start_sidecar: SidecarMaker, application: Application, collector: FileCollector):
    port = free_port()
    settings = behind(application, collector) | {"admin": {"listen": f"127.0.0.1:{port}"}}
    before = client.dropped()
    for name in ("first", "second"):
        sidecar = start_sidecar(settings, QUICK_EXPORT, name)
        with TaskMonitor(name, url=sidecar.admin):
            pass
        assert ended(told(sidecar)) == {(name, "succeeded", None): 1}
        assert sidecar.stop() == 0
    assert client.dropped() == before


@pytest.mark.parametrize("python", interpreters(), ids=lambda python: Path(python).parts[-3])
def test_each_python_of_this_machine_tells_its_tasks(sidecar: Sidecar, python: str):
    script = """if True:
        import asyncio
        import content_factory_sidecar as client
        @client.TaskMonitor("coroutine")
        async def fails():
            raise LookupError
        async def whole():
            async with client.TaskMonitor("whole"):
                try:
                    await fails()
                except LookupError:
                    pass
        asyncio.run(whole())
        print(client.flush(20), client.dropped())
    """
    assert run(script, {"SIDECAR_URL": sidecar.admin}, python) == "True 0\n"
    assert ended(sidecar.json(TASKS)) == {("whole", "succeeded", None): 1, ("coroutine", "failed", "LookupError"): 1}


@pytest.mark.parametrize("minor", range(9, NEWEST[1] + 1))
def test_each_file_is_of_the_syntax_of_each_python(minor: int):
    assert len(FILES) == 4
    for file in FILES:
        ast.parse(file.read_text(), file.name, feature_version=(3, minor))


def test_nothing_is_imported_but_the_standard_library_and_the_package_itself():
    imported = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    assert "http" in imported, "nothing was read"
    assert imported - {"content_factory_sidecar"} <= sys.stdlib_module_names


def test_the_package_says_that_it_is_typed_and_every_function_is():
    assert (SOURCES / "content_factory_sidecar/py.typed").is_file()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                untyped = [argument.arg for argument in arguments if argument.annotation is None and argument.arg != "self"]
                assert not untyped and node.returns is not None, f"{file.name}: {node.name} {untyped}"


def test_the_processes_of_the_example_tell_their_tasks_and_celerys_is_told_by_its_id(
    tmp_path: Path, start_sidecar: SidecarMaker, postgres: Postgres, redis: Redis, collector: FileCollector
):
    port = free_port()
    environment = {
        "DATABASE_URL": postgres.url,
        # a database of its own: the worker that the whole run shares would take the task, and tells no sidecar of it
        "REDIS_URL": redis.url.rsplit("/", 1)[0] + "/6",
        "SIDECAR_URL": f"http://127.0.0.1:{port}",
    }
    application = Application(tmp_path, environment, workers=2)
    worker = CeleryWorker(tmp_path, environment)
    for process in (application, worker):
        process.environment["PYTHONPATH"] += f":{SOURCES}"
    try:
        application.create_tables()
        application.start()
        settings = behind(application, collector) | {"admin": {"listen": f"127.0.0.1:{port}"}}
        sidecar = start_sidecar(settings, QUICK_EXPORT)
        product = 10
        while product % 10 == 0:  # every tenth is refused a script, and other files make products, too
            product = httpx.post(sidecar.proxy + "/api/v1/products", json={"name": "a product"}).raise_for_status().json()["id"]
        script = httpx.post(sidecar.proxy + f"/api/v1/products/{product}/scripts").raise_for_status().json()
        video = httpx.post(sidecar.proxy + "/api/v1/videos", json={"script_id": script["id"]}).raise_for_status().json()
        for _ in range(20):
            path = f"/api/v1/social-media/publish-video/{video['id']}"
            assert httpx.post(sidecar.proxy + path).status_code == 200
        eventually(lambda: sidecar.json(TASKS)["succeeded"] == 20, "twenty tasks of the web processes")
        assert {task["task_id"] for task in sidecar.json(TASKS)["recent"]} == {None}

        worker.start()
        identity = send_publication(video["id"], worker.environment)
        page = eventually(lambda: (page := sidecar.json(TASKS))["succeeded"] == 21 and page, "the task of Celery")
        newest = page["recent"][0]
        assert (newest["name"], newest["task_id"]) == ("publish_video", identity)
    finally:
        application.kill()
        worker.kill()


def send_publication(video: int, environment: dict[str, str]) -> str:
    """Has Celery publish a video, and returns the id of its task."""
    script = f"""if True:
        from content_factory.tasks import orders, publish_video
        print(orders.send_task(publish_video.name, [{video}]).id)
    """
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is that pip makes of the folder; with what it is built by, nothing is fetched."""
    tree, wheels, folder = (tmp_path_factory.mktemp(name) for name in ("tree", "wheels", "installed"))
    # a build leaves files beside the sources
    shutil.copytree(ROOT / "clients/python", tree / "python", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    script = [ROOT / "tests/setup/python.sh", ROOT / "tests/e2e/wheel/requirements.txt"]
    venv = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()[-1]

    def pip(*arguments: str | Path) -> None:
        command = [f"{venv}/bin/python", "-m", "pip", *arguments, "--no-deps", "--no-index", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    pip("wheel", "--no-build-isolation", "--wheel-dir", wheels, tree / "python")
    [wheel] = wheels.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl"), "of any Python 3 and any machine"
    pip("install", "--target", folder, wheel)
    return folder


def test_the_package_is_built_typed_and_needs_nothing(installed: Path):
    package = installed / "content_factory_sidecar"
    assert {file.name for file in package.iterdir() if file.is_file()} == {file.name for file in FILES} | {"py.typed"}
    [metadata] = installed.glob("content_factory_sidecar-*.dist-info/METADATA")
    said = metadata.read_text()
    assert "\nRequires-Python: >=3.9\n" in said
    assert "Requires-Dist" not in said


@pytest.mark.parametrize("python", interpreters(), ids=lambda python: Path(python).parts[-3])
def test_what_pip_has_installed_tells_a_task_to_the_sidecar(sidecar: Sidecar, installed: Path, python: str):
    script = """if True:
        import content_factory_sidecar as client
        with client.TaskMonitor("installed"):
            pass
        print(client.flush(20), client.__file__)
    """
    said = run(script, {"SIDECAR_URL": sidecar.admin, "PYTHONPATH": str(installed)}, python)
    assert said == f"True {installed}/content_factory_sidecar/__init__.py\n"
    assert ended(sidecar.json(TASKS)) == {("installed", "succeeded", None): 1}


def test_the_package_is_of_the_version_of_the_sidecar_and_needs_nothing():
    project = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
    sidecar = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    assert (project["version"], project["license"]) == (sidecar["version"], sidecar["license"])
    assert (project["requires-python"], project["dependencies"]) == (">=3.9", [])
