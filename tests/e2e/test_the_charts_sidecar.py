"""What the chart tells the sidecar is what the sidecar understands: the rendered container, run as a process."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from factory import Application
from processes import ROOT, Process, free_port
from sidecar import binary
from waiting import eventually

sys.path.append(str(ROOT / "tests/chart"))
from chart import CHART, environment, only, render, web  # noqa: E402

# What the kubelet fills in, and the token that it reads from the Secret.
FIELDS = {
    "status.podIP": "10.1.2.3",
    "metadata.name": "shop-web-1",
    "metadata.uid": "uid-1",
    "metadata.namespace": "factory",
    "spec.nodeName": "node-1",
}
SECRET = "a-token-from-the-secret"


def filled_in(container: dict) -> dict[str, str]:
    """The environment as the container gets it: fields and secrets looked up, `$(NAME)` replaced."""
    values: dict[str, str] = {}
    for name, value in environment(container).items():
        if isinstance(value, dict):
            value = FIELDS[value["fieldRef"]["fieldPath"]] if "fieldRef" in value else SECRET
        values[name] = re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], value)
    return values


@pytest.fixture(params=["", "sidecar.config.proxy.workers=1"], ids=["no file", "a file"])
def admin(request: pytest.FixtureRequest, tmp_path: Path, application: Application) -> Iterator[str]:
    """The admin address of the chart's sidecar in front of the application."""
    proxy, admin_port = free_port(), free_port()
    values = [f"web.port={application.port}", f"sidecar.ports.proxy={proxy}", f"sidecar.ports.admin={admin_port}", request.param]
    objects = render(CHART / "ci/collector-values.yaml", *filter(None, values))
    container = web(objects).sidecar
    arguments = container["args"]
    if request.param:
        file = tmp_path / "sidecar.yaml"
        file.write_text(only(objects, "ConfigMap", "content-factory-sidecar")["data"]["sidecar.yaml"])
        arguments = [str(file) if argument.endswith("sidecar.yaml") else argument for argument in arguments]
    # the only change: the folder of the mounted volume
    settings = filled_in(container) | {"SIDECAR_DATA_DIR": str(tmp_path / "data")}
    process = Process("container", [binary(), *arguments], settings, tmp_path)
    process.spawn()

    def started() -> bool:
        process.must_live()
        return status(f"http://127.0.0.1:{admin_port}/startupz") == 200

    eventually(started, "the startup probe to succeed")
    yield f"http://127.0.0.1:{admin_port}"
    assert process.stop() == 0


def status(url: str) -> int:
    """What a probe would see; like the kubelet it looks at no certificate."""
    try:
        with urllib.request.urlopen(url, timeout=2, context=unverified()) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def unverified() -> ssl.SSLContext:
    """Trusts everybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def mount(objects: list[dict], secrets: Path, settings: dict[str, str]) -> dict[str, str]:
    """The settings with each path of a mounted Secret in this folder, which has its files by the names of the Secret's volume."""
    sidecar = web(objects).sidecar
    places = {entry["mountPath"]: secrets / entry["name"] for entry in sidecar["volumeMounts"]}
    volumes = {volume["name"]: volume.get("secret") for volume in web(objects).pod["volumes"]}

    def found(value: str) -> str:
        for path, folder in places.items():
            if value.startswith(f"{path}/") and volumes[folder.name]:
                return str(folder / value.removeprefix(f"{path}/"))
        return value

    return {name: found(value) for name, value in settings.items()}


def test_the_charts_probes_succeed_by_https_and_its_tokens_open_the_rest(tmp_path: Path, application: Application):
    proxy, admin_port = free_port(), free_port()
    values = [f"web.port={application.port}", f"sidecar.ports.proxy={proxy}", f"sidecar.ports.admin={admin_port}"]
    secrets = ["sidecar.admin.tokens.existingSecret=tokens", "sidecar.admin.tls.existingSecret=certificate"]
    objects = render(CHART / "ci/default-values.yaml", *values, *secrets, "sidecar.admin.tls.clientCaKey=ca.crt")
    folder = tmp_path / "sidecar-tls"
    folder.mkdir()
    make_certificate(folder)
    (tmp_path / "sidecar-tokens").mkdir()
    (tmp_path / "sidecar-tokens/tokens").write_text(f"{SECRET}\n")
    container = web(objects).sidecar
    settings = mount(objects, tmp_path, filled_in(container)) | {"SIDECAR_DATA_DIR": str(tmp_path / "data")}
    process = Process("container", [binary(), *container["args"]], settings, tmp_path)
    process.spawn()
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    urls = [f"{probe['scheme'].lower()}://127.0.0.1:{probe['port']}{probe['path']}" for probe in probes]

    def started() -> bool:
        process.must_live()
        return [status(url) for url in urls] == [200, 200, 200]

    eventually(started, "the chart's probes to succeed")
    page = f"https://127.0.0.1:{admin_port}/status"
    assert status(page) == 401
    request = urllib.request.Request(page, headers={"Authorization": f"Bearer {SECRET}"})
    with urllib.request.urlopen(request, timeout=5, context=unverified()) as answer:
        assert answer.status == 200
    assert process.stop() == 0


def make_certificate(folder: Path) -> None:
    """A certificate that signs itself, as files of a Secret have it."""
    names = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=sidecar"]
    subprocess.run(["openssl", "req", "-x509", *kind, "-addext", "subjectAltName=DNS:sidecar", *names], check=True, capture_output=True)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())


def test_the_sidecar_starts_by_the_charts_settings_and_its_probes_succeed(admin: str):
    for probe in ("startupz", "livez", "readyz"):
        eventually(lambda: status(f"{admin}/{probe}") == 200, f"the {probe} probe to succeed")  # noqa: B023


def test_the_charts_token_is_not_readable_at_the_endpoints(admin: str):
    for page in ("/health", "/status", "/metrics", "/dashboard"):
        with urllib.request.urlopen(admin + page, timeout=5) as answer:
            assert SECRET not in answer.read().decode()
