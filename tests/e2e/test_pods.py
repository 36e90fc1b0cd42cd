"""Who sent it: the gateway looks senders up at a Kubernetes API, directly, behind an agent and behind a balancer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import messages
import pytest
import vendors
from gateway import OVERRIDES, Agent, Balancer, Gateway
from kubernetes import Api, pod
from processes import ROOT
from vendors import Vendor, Vendors

sys.path.append(str(ROOT / "tests/chart"))
from chart import CHART, only, render  # noqa: E402

OF_THE_POD = {
    "k8s.namespace.name": "factory",
    "k8s.deployment.name": "web",
    "k8s.node.name": "node-1",
    "k8s.container.name": "web",
    "container.image.name": "factory/web",
    "team.name": "video",
}


@pytest.fixture
def api() -> Iterator[Api]:
    """A cluster of three pods: the first has the address that senders in tests have."""
    addresses = {"a": "127.0.0.1", "b": "10.1.2.3", "c": "10.1.2.4"}
    server = Api([pod(f"web-{name}", ip=ip, uid=f"uid-{name}") for name, ip in addresses.items()])
    yield server
    server.close()


@pytest.fixture
def three() -> Iterator[Vendors]:
    """Fresh stand-ins for one test."""
    with vendors.Vendors() as stand_ins:
        yield stand_ins


def looking_up(folder: Path, api: Api, three: Vendors) -> Gateway:
    """A gateway that may ask the API: only the way to it is another than in a cluster, and it waits for the answer."""
    settings = folder / "kubernetes.yaml"
    settings.write_text("processors: {k8s_attributes: {auth_type: kubeConfig, wait_for_metadata: true}}\n")
    environment = {"K8S_ATTRIBUTES_PASSTHROUGH": "false", "KUBECONFIG": str(api.kubeconfig(folder))}
    return Gateway(folder, three.environment("newrelic") | environment, (OVERRIDES, settings))


def everything(name: str, **known: str) -> list:
    """A span, a record and a counter of one sender, which says this much of itself."""
    resource = messages.Resource(attributes=messages.attributes({"service.name": name, **known}))
    return [
        messages.traces([messages.server_span(name)], resource),
        messages.logs([(name, {})], resource),
        messages.delta("jobs", [(1, {})], resource),
    ]


def senders(vendor: Vendor) -> dict[str, list[dict]]:
    """The resources that arrived for each service, of all three signals; not of the metrics that are made from spans."""
    found: dict[str, list[dict]] = {}
    for signal, field in (("traces", "resource_spans"), ("logs", "resource_logs"), ("metrics", "resource_metrics")):
        for request in vendor.accepted(signal):
            for part in getattr(request.message(), field):
                made = signal == "metrics" and part.scope_metrics[0].metrics[0].name != "jobs"
                if not made:
                    values = messages.plain(part.resource.attributes)
                    found.setdefault(str(values["service.name"]), []).append(values)
    return found


def all_arrived(vendor: Vendor, names: set[str]) -> dict[str, list[dict]]:
    """Waits for three resources of each."""
    vendor.wait_for(lambda seen: {name for name, parts in senders(seen).items() if len(parts) >= 3} >= names, "all senders")
    return senders(vendor)


def test_a_sender_is_found_by_its_uid_its_address_or_its_connection_in_all_signals(tmp_path, api, three):
    with looking_up(tmp_path, api, three) as gateway:
        known = {"by-connection": {}, "by-address": {"k8s.pod.ip": "10.1.2.3"}, "by-uid": {"k8s.pod.uid": "uid-c"}}
        for name, attributes in known.items():
            for message in everything(name, **attributes):
                assert gateway.export(message) == 200
        found = all_arrived(three.new_relic, set(known))
    pods = {"by-connection": "web-a", "by-address": "web-b", "by-uid": "web-c"}
    for name, parts in found.items():
        for values in parts:
            assert values["k8s.pod.name"] == pods[name]
            assert {key: values.get(key) for key in OF_THE_POD} == OF_THE_POD


def test_what_a_sender_says_of_itself_stays(tmp_path, api, three):
    with looking_up(tmp_path, api, three) as gateway:
        for message in everything("sidecar", **{"k8s.pod.uid": "uid-b", "k8s.pod.name": "its-own-word"}):
            assert gateway.export(message) == 200
        found = all_arrived(three.new_relic, {"sidecar"})
    assert {values["k8s.pod.name"] for values in found["sidecar"]} == {"its-own-word"}


def test_an_agent_and_a_balancer_hand_the_senders_address_on(tmp_path, api, three):
    with (
        looking_up(tmp_path, api, three) as gateway,
        Agent(tmp_path, gateway) as agent,
        Balancer(tmp_path, [gateway]) as balancer,
    ):
        for message in everything("behind-the-agent"):
            assert agent.export(message) == 200
        for message in everything("behind-the-balancer"):
            assert balancer.export(message) == 200
        # not the address of the one that it came through
        for message in everything("far-away", **{"k8s.pod.ip": "10.1.2.3"}):
            assert balancer.export(message) == 200
        found = all_arrived(three.new_relic, {"behind-the-agent", "behind-the-balancer", "far-away"})
    pods = {name: {values["k8s.pod.name"] for values in parts} for name, parts in found.items()}
    assert pods == {"behind-the-agent": {"web-a"}, "behind-the-balancer": {"web-a"}, "far-away": {"web-b"}}


def test_the_charts_role_allows_what_the_gateway_asks_for_and_no_more(tmp_path, api, three):
    with looking_up(tmp_path, api, three):
        pass
    objects = render(CHART / "ci/collector-values.yaml", "collector.kubernetesLookup=true")
    rules = only(objects, "ClusterRole", "-collector")["rules"]
    allowed = {
        f"{'/api/v1' if group == '' else f'/apis/{group}/v1'}/{resource}"
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert all(set(rule["verbs"]) == {"get", "list", "watch"} for rule in rules)
    assert api.asked == allowed
