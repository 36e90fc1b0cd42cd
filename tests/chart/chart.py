"""Renders the chart with the real Helm, as an operator's `helm install` would."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/content-factory-sidecar"
CASES = sorted(CHART.glob("ci/*-values.yaml"))
OLDEST, NEWEST = "1.29", "1.37"


@functools.cache
def helm_binary() -> str:
    """The path of Helm; installs it when it is not in the cache."""
    installed = subprocess.run([ROOT / "tests/setup/helm.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return installed.stdout.splitlines()[-1]


def helm(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Runs Helm; the caller looks at the exit code."""
    return subprocess.run([helm_binary(), *arguments], capture_output=True, text=True, timeout=60)


def render(*values: Path | str, kubernetes: str = NEWEST) -> list[dict]:
    """All objects, from values files (paths) and single settings (`key=value`)."""
    run = helm("template", "shop", CHART, "--namespace", "factory", "--kube-version", f"{kubernetes}.0", *_flags(values))
    assert run.returncode == 0, run.stderr
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def refusal(*values: Path | str) -> str:
    """What Helm says when it refuses to render; fails if it does not refuse."""
    run = helm("template", "shop", CHART, "--kube-version", f"{NEWEST}.0", *_flags(values))
    assert run.returncode != 0, f"rendered with {values}, expected a refusal"
    return run.stderr


def _flags(values) -> list[str]:
    flags = []
    for value in values:
        flags += ["--values", str(value)] if isinstance(value, Path) else ["--set", value]
    return flags


def only(objects: list[dict], kind: str, suffix: str = "") -> dict:
    """The one object of that kind whose name ends so."""
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [(item["kind"], item["metadata"]["name"]) for item in objects]
    return found[0]


@dataclasses.dataclass(frozen=True)
class Web:
    """The Deployment of the application and the containers in its pod."""

    deployment: dict

    @property
    def pod(self) -> dict:
        """The pod's specification."""
        return self.deployment["spec"]["template"]["spec"]

    @property
    def application(self) -> dict:
        """The application's container."""
        [container] = [container for container in self.pod["containers"] if container["name"] == "web"]
        return container

    @property
    def sidecar(self) -> dict:
        """The sidecar's container, wherever it stands."""
        containers = self.pod.get("initContainers", []) + self.pod["containers"]
        [container] = [container for container in containers if container["name"] == "content-factory-sidecar"]
        return container


def web(objects: list[dict]) -> Web:
    """The application's part of the rendered objects."""
    return Web(only(objects, "Deployment", "-web"))


def environment(container: dict) -> dict[str, str | dict]:
    """Name to value, or to where the value comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}
