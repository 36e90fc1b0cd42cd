"""The chart, rendered by the real Helm and read as Kubernetes would read it."""

from __future__ import annotations

import re
import subprocess
import tarfile

import kubernetes_validate
import pytest
import yaml
from chart import CASES, CHART, NEWEST, OLDEST, ROOT, environment, helm, only, refusal, render, web

DEFAULT = CHART / "ci/default-values.yaml"
FULL = CHART / "ci/full-values.yaml"
COLLECTOR = CHART / "ci/collector-values.yaml"
COLLECTOR_ALL = CHART / "ci/collector-all-values.yaml"
COLLECTOR_MANY = CHART / "ci/collector-many-values.yaml"
MINIMAL = CHART / "ci/minimal-values.yaml"


@pytest.mark.parametrize("values", CASES, ids=lambda path: path.stem)
def test_the_chart_lints_strictly(values):
    run = helm("lint", "--strict", CHART, "--values", values)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("kubernetes", [OLDEST, "1.33", NEWEST])
@pytest.mark.parametrize("values", CASES, ids=lambda path: path.stem)
def test_every_object_fits_kubernetes_schemas_strictly(values, kubernetes):
    objects = render(values, kubernetes=kubernetes)
    assert objects
    for item in objects:
        kubernetes_validate.validate(item, kubernetes, strict=True)


def test_the_schema_check_notices_an_unknown_field():
    deployment = web(render(DEFAULT)).deployment
    deployment["spec"]["template"]["spec"]["initContainers"][0]["restartPolcy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_the_sidecar_is_the_first_init_container_and_keeps_running():
    first = web(render(DEFAULT)).pod["initContainers"][0]
    assert (first["name"], first["restartPolicy"]) == ("content-factory-sidecar", "Always")


def test_the_sidecar_can_be_an_ordinary_container():
    pod = web(render(MINIMAL)).pod
    assert "initContainers" not in pod
    assert [container["name"] for container in pod["containers"]] == ["web", "content-factory-sidecar"]
    assert "restartPolicy" not in pod["containers"][1]


@pytest.mark.parametrize("values", CASES, ids=lambda path: path.stem)
def test_services_name_their_ports_by_number(values):
    objects = render(values)
    ports = [port for item in objects if item["kind"] == "Service" for port in item["spec"]["ports"]]
    assert ports and all(isinstance(port["targetPort"], int) for port in ports)
    service = [item for item in objects if item["kind"] == "Service" and "-collector" not in item["metadata"]["name"]]
    proxy = web(objects).sidecar["ports"][0]["containerPort"]
    assert [port["targetPort"] for port in service[0]["spec"]["ports"]] == [proxy]


def test_the_sidecar_proxies_to_the_applications_port():
    found = web(render(FULL))
    settings = environment(found.sidecar)
    assert settings["SIDECAR_PROXY__UPSTREAM"] == "http://127.0.0.1:9000"
    assert settings["SIDECAR_PROXY__LISTEN"] == "0.0.0.0:28000"
    assert settings["SIDECAR_ADMIN__LISTEN"] == "0.0.0.0:28090"
    assert found.application["ports"][0]["containerPort"] == 9000


def test_the_sidecar_is_told_its_pod_and_the_applications_container():
    found = web(render(DEFAULT))
    settings = environment(found.sidecar)
    fields = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_IP": "status.podIP", "NODE_NAME": "spec.nodeName"}
    assert {name: settings[name]["fieldRef"]["fieldPath"] for name in fields} == fields
    assert settings["CONTAINER_NAME"] == found.application["name"]
    # of namespace, pod and container
    assert "service.instance.id" not in settings["OTEL_RESOURCE_ATTRIBUTES"]


def test_the_sidecars_probes_ask_the_sidecar_and_the_applications_ask_the_application():
    found = web(render(DEFAULT))
    probes = {name: found.sidecar[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {
        "startupProbe": {"path": "/startupz", "port": 18090},
        "livenessProbe": {"path": "/livez", "port": 18090},
        "readinessProbe": {"path": "/readyz", "port": 18090},
    }
    assert found.application["readinessProbe"] == {"tcpSocket": {"port": 8000}}
    assert "livenessProbe" not in found.application


def test_the_admin_port_s_tokens_and_certificates_are_mounted_as_files_and_the_probes_speak_https():
    found = web(render(FULL))
    settings, mounts = environment(found.sidecar), {mount["name"]: mount for mount in found.sidecar["volumeMounts"]}
    volumes = {volume["name"]: volume.get("secret") for volume in found.pod["volumes"]}
    assert volumes["sidecar-tokens"] == {"secretName": "admin-tokens", "items": [{"key": "all", "path": "tokens"}]}
    assert volumes["sidecar-tls"] == {"secretName": "admin-certificate"}
    # a whole volume: one of a single file would never change
    assert all("subPath" not in mount and mount.get("readOnly") for name, mount in mounts.items() if name != "sidecar-data")
    tokens, tls = mounts["sidecar-tokens"]["mountPath"], mounts["sidecar-tls"]["mountPath"]
    assert settings["SIDECAR_ADMIN__TOKENS_FILE"] == f"{tokens}/tokens"
    files = {name: f"SIDECAR_ADMIN__TLS__{key}_FILE" for name, key in (("tls.crt", "CERTIFICATE"), ("tls.key", "KEY"), ("ca.crt", "CLIENT_CA"))}
    assert {settings[variable] for variable in files.values()} == {f"{tls}/{name}" for name in files}
    probes = [found.sidecar[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert [probe["scheme"] for probe in probes] == ["HTTPS"] * 3
    annotations = found.deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scheme"] == "https"


def test_the_egress_port_is_on_loopback_and_nothing_outside_the_pod_names_it():
    objects = render(FULL)
    found = web(objects)
    settings = environment(found.sidecar)
    assert (settings["SIDECAR_EGRESS__ENABLED"], settings["SIDECAR_EGRESS__LISTEN"]) == ("true", "127.0.0.1:28001")
    assert 28001 not in [port["containerPort"] for port in found.sidecar["ports"]]
    services = [port for item in objects if item["kind"] == "Service" for port in item["spec"]["ports"]]
    assert 28001 not in [port["targetPort"] for port in services]


def test_without_a_word_there_is_no_egress_and_its_port_and_the_intakes_are_free():
    assert not [name for name in environment(web(render(DEFAULT)).sidecar) if "EGRESS" in name]
    for port in (18001, 4317, 4318):
        assert web(render(DEFAULT, f"web.port={port}")).application["ports"][0]["containerPort"] == port


@pytest.mark.parametrize("values", CASES, ids=lambda path: path.stem)
def test_every_pod_fits_the_restricted_profile(values):
    pods = [item["spec"]["template"]["spec"] for item in render(values) if item["kind"] in ("Deployment", "StatefulSet")]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for volume in pod.get("volumes", []):
            assert volume.keys() - {"name"} <= {"emptyDir", "configMap", "secret"}
        for container in pod.get("initContainers", []) + pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert all("hostPort" not in port for port in container["ports"])


def test_the_sidecar_writes_only_to_its_own_volume_and_is_nobody():
    sidecar = web(render(DEFAULT)).sidecar
    context = sidecar["securityContext"]
    assert (context["runAsUser"], context["readOnlyRootFilesystem"]) == (65532, True)
    assert [mount["mountPath"] for mount in sidecar["volumeMounts"] if not mount.get("readOnly")] == ["/var/lib/content-factory-sidecar"]
    assert environment(sidecar)["SIDECAR_DATA_DIR"] == "/var/lib/content-factory-sidecar"


@pytest.mark.parametrize("values", [FULL, COLLECTOR, COLLECTOR_ALL], ids=lambda path: path.stem)
def test_keys_and_tokens_are_only_referred_to(values):
    objects = render(values)
    assert "Secret" not in {item["kind"] for item in objects}
    for item in objects:
        template = item.get("spec", {}).get("template", {}).get("spec", {})
        for container in template.get("initContainers", []) + template.get("containers", []):
            for name, value in environment(container).items():
                if name.endswith(("_KEY", "_TOKEN")):
                    assert set(value["secretKeyRef"]) == {"name", "key"}


def test_the_sidecars_secrets_come_from_the_existing_secret():
    found = web(render(FULL)).sidecar
    assert found["envFrom"] == [{"secretRef": {"name": "content-factory-sidecar"}}]
    assert environment(found)["OTEL_EXPORTER_OTLP_HEADERS"] == {"secretKeyRef": {"name": "otlp-headers", "key": "value"}}


def test_the_configuration_rolls_the_pods_when_it_changes():
    before, after = (
        web(render(FULL, f"sidecar.config.external_api.url=https://{host}.example/")).deployment["spec"]["template"]["metadata"]
        for host in ("one", "two")
    )
    assert before["annotations"]["checksum/config"] != after["annotations"]["checksum/config"]


def test_the_config_map_holds_the_configuration_that_the_sidecar_is_told_to_read():
    objects = render(FULL)
    mounted = web(objects).sidecar["args"]
    assert mounted == ["run", "--config", "/etc/content-factory-sidecar/sidecar.yaml"]
    [name] = [volume["configMap"]["name"] for volume in web(objects).pod["volumes"] if "configMap" in volume]
    config_map = only(objects, "ConfigMap")
    assert config_map["metadata"]["name"] == name
    assert yaml.safe_load(config_map["data"]["sidecar.yaml"]) == {"external_api": {"url": "https://api.example/ping"}}


def setting_s_default(key: str) -> int:
    """The seconds that the sidecar takes without that setting, as its own documentation has them."""
    [row] = [line for line in (ROOT / "docs/configuration.md").read_text().splitlines() if line.startswith(f"| `{key}` ")]
    return int(re.search(r"\| `(\d+)s` \|", row).group(1))


def test_the_kubelet_waits_until_the_sidecar_has_drained_and_delivered():
    needed = setting_s_default("proxy.drain_timeout") + setting_s_default("telemetry.shutdown") + 1
    for values in CASES:
        assert web(render(values)).pod["terminationGracePeriodSeconds"] > needed
    assert f"expected more than {needed}:" in refusal(DEFAULT, f"terminationGracePeriodSeconds={needed}")
    assert render(DEFAULT, f"terminationGracePeriodSeconds={needed + 1}")
    assert render(DEFAULT, "terminationGracePeriodSeconds=9", "sidecar.config.proxy.drain_timeout=2s")


def drain_delay(objects: list[dict[str, Any]]) -> str | None:
    return environment(web(objects).sidecar).get("SIDECAR_PROXY__DRAIN_DELAY")


def test_a_sidecar_that_is_told_with_the_application_takes_new_connections_for_as_long_as_that_one_answers():
    assert drain_delay(render(DEFAULT)) is None
    assert drain_delay(render(DEFAULT, "sidecar.native=false")) == "5s"
    assert drain_delay(render(DEFAULT, "sidecar.native=false", "sidecar.config.proxy.drain_delay=2s")) == "2s"


def test_replicas_are_left_out_when_somebody_else_scales():
    assert "replicas" not in web(render(MINIMAL)).deployment["spec"]
    assert web(render(DEFAULT)).deployment["spec"]["replicas"] == 2


@pytest.mark.parametrize(("kubernetes", "handler"), [(OLDEST, {"exec": {"command": ["sleep", "5"]}}), ("1.30", {"sleep": {"seconds": 5}})])
def test_the_application_waits_before_it_goes_by_what_the_cluster_knows(kubernetes, handler):
    assert web(render(DEFAULT, kubernetes=kubernetes)).application["lifecycle"]["preStop"] == handler


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["web.port=18000"], "sidecar.ports.proxy: 18000, expected another port than web.port"),
        (["web.port=18090"], "sidecar.ports.admin: 18090, expected another port than web.port"),
        (["sidecar.ports.admin=18000"], "sidecar.ports.admin: 18000, expected another port than sidecar.ports.proxy"),
        (["sidecar.egress.enabled=true", "web.port=18001"], "sidecar.ports.egress: 18001, expected another port than web.port"),
        (
            ["sidecar.egress.enabled=true", "sidecar.ports.egress=18090"],
            "sidecar.ports.egress: 18090, expected another port than sidecar.ports.admin",
        ),
        (
            ["sidecar.config.egress.enabled=true", "sidecar.ports.proxy=18001"],
            "sidecar.config.egress.listen: 18001, expected another port than sidecar.ports.proxy",
        ),
        (
            ["sidecar.config.egress.enabled=true", "sidecar.config.egress.listen=127.0.0.1:8000"],
            "sidecar.config.egress.listen: 8000, expected another port than web.port",
        ),
        (
            ["sidecar.config.telemetry.intake.enabled=true", "web.port=4317"],
            "sidecar.config.telemetry.intake.grpc: 4317, expected another port than web.port",
        ),
        (
            ["sidecar.config.telemetry.intake.enabled=true", "sidecar.egress.enabled=true", "sidecar.ports.egress=4318"],
            "sidecar.config.telemetry.intake.http: 4318, expected another port than sidecar.ports.egress",
        ),
        (
            ["sidecar.egress.enabled=true", "sidecar.config.egress.listen=127.0.0.1:9"],
            "sidecar.config.egress.listen: set, but the chart sets it by the environment, which wins: expected the value under sidecar.ports.egress",
        ),
        (["web.image.repository="], "web.image.repository: empty, expected the image of your application"),
        (["dataDir.sizeLimit=256Mi"], "dataDir.sizeLimit: 256Mi, expected more than 320Mi"),
        (["collector.enabled=true"], "collector.existingSecret: empty, expected the name of a Secret"),
        (
            ["collector.enabled=true", "collector.existingSecret=keys", "collector.vendors.sentry.secretKey=key"],
            "collector.vendors.sentry.url: empty, expected https://",
        ),
        (["sidecar.config.proxy.upstream=http://x"], "sidecar.config.proxy.upstream: set, but the chart sets it"),
        (
            ["sidecar.admin.tokens.existingSecret=x", "sidecar.config.admin.tokens_file=/x"],
            "sidecar.config.admin.tokens_file: set, but the chart sets it",
        ),
        (["sidecar.admin.tls.existingSecret=x", "sidecar.config.admin.tls.key_file=/x"], "sidecar.config.admin.tls: set, but the chart"),
        (["sidecar.admin.tls.clientCaKey=ca.crt"], "sidecar.admin.tls.existingSecret: empty, expected the Secret that has clientCaKey"),
        (["terminationGracePeriodSeconds=24"], "terminationGracePeriodSeconds: 24, expected more than 24"),
        (["sidecar.native=false", "terminationGracePeriodSeconds=29"], "29, expected more than 29"),
        (["sidecar.config.proxy.drain_delay=7s"], "terminationGracePeriodSeconds: 30, expected more than 31"),
        (["sidecar.config.proxy.drain_timeout=1m"], "terminationGracePeriodSeconds: 30, expected more than 64"),
        (["sidecar.config.telemetry.shutdown=8500ms"], "terminationGracePeriodSeconds: 30, expected more than 30"),
        (["sidecar.config.proxy.drain_timeout=soon"], "sidecar.config.proxy.drain_timeout: soon, expected a duration"),
    ],
)
def test_a_mistake_is_refused_and_named(settings, complaint):
    assert complaint in refusal(DEFAULT, *settings)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("sidecar.ports.prxy=1", "additional properties 'prxy' not allowed"),
        ("sidecra.native=true", "additional properties 'sidecra' not allowed"),
        ("web.port=http", "/web/port"),
        ("sidecar.ports.proxy=80", "/sidecar/ports/proxy"),
        ("sidecar.ports.egress=80", "/sidecar/ports/egress"),
        ("sidecar.egress.upstream=https://x", "additional properties 'upstream' not allowed"),
        ("sidecar.otlp.protocol=http/json", "/sidecar/otlp/protocol"),
        ("service.type=ExternalName", "/service/type"),
        ("collector.vendors.honeycomb.secretKey=x", "additional properties 'honeycomb' not allowed"),
    ],
)
def test_the_schema_refuses_a_misspelt_key_or_an_impossible_value(setting, complaint):
    assert complaint in refusal(DEFAULT, setting)


def test_values_of_a_parent_chart_are_accepted():
    assert render(DEFAULT, "global.region=eu", "enabled=true")


def test_an_older_cluster_is_refused():
    run = helm("template", "shop", CHART, "--values", DEFAULT, "--kube-version", "1.28.9")
    assert run.returncode != 0 and ">=1.29.0-0" in run.stderr


def test_without_the_collector_nothing_of_it_is_installed():
    assert sorted(item["kind"] for item in render(DEFAULT)) == ["Deployment", "Service"]


@pytest.mark.parametrize(
    ("settings", "vendors"),
    [
        ([], []),
        (["datadog"], ["datadog"]),
        (["newrelic"], ["newrelic"]),
        (["sentry"], ["sentry"]),
        (["datadog", "sentry"], ["datadog", "sentry"]),
    ],
    ids=lambda names: "+".join(names) or "none",
)
def test_the_collector_gets_the_overlays_whose_keys_are_given_and_no_other(settings, vendors):
    chosen = [f"collector.vendors.{vendor}.secretKey={vendor}-key" for vendor in settings]
    sentry = "collector.vendors.sentry.url=https://o1.example/api/2/integration/otlp"
    objects = render(DEFAULT, "collector.enabled=true", "collector.existingSecret=keys", sentry, *chosen)
    files = set(only(objects, "ConfigMap", "-collector")["data"])
    assert files == {"gateway.yaml"} | {f"{vendor}.yaml" for vendor in vendors}
    [container] = only(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [f"--config=/etc/otelcol/{name}.yaml" for name in ["gateway", *vendors]]
    keys = {name for name in environment(container) if name.endswith("_KEY")}
    names = {"datadog": "DD_API_KEY", "newrelic": "NEW_RELIC_LICENSE_KEY", "sentry": "SENTRY_PUBLIC_KEY"}
    assert keys == {names[vendor] for vendor in vendors}


def test_the_sidecar_sends_to_the_chart_s_collector_with_its_token():
    objects = render(COLLECTOR)
    settings = environment(web(objects).sidecar)
    service = only(objects, "Service", "-collector")
    assert settings["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://{service['metadata']['name']}:4317"
    assert settings["COLLECTOR_TOKEN"] == {"secretKeyRef": {"name": "telemetry-keys", "key": "token"}}
    assert settings["OTEL_EXPORTER_OTLP_HEADERS"] == "authorization=Bearer%20$(COLLECTOR_TOKEN)"
    names = list(settings)
    assert names.index("COLLECTOR_TOKEN") < names.index("OTEL_EXPORTER_OTLP_HEADERS"), "the kubelet expands only what stands before"


def test_services_select_the_pods_that_they_are_for():
    objects = render(COLLECTOR)
    for kind, suffix in (("Deployment", "-web"), ("StatefulSet", "-collector")):
        labels = only(objects, kind, suffix)["spec"]["template"]["metadata"]["labels"]
        matching = [item for item in objects if item["kind"] == "Service" and item["spec"]["selector"].items() <= labels.items()]
        assert len(matching) == 1


def test_the_collector_asks_for_rights_only_when_it_looks_up_pods():
    kinds = {item["kind"] for item in render(COLLECTOR)}
    assert not kinds & {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
    objects = render(COLLECTOR_ALL)
    pod = only(objects, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == only(objects, "ServiceAccount")["metadata"]["name"]
    verbs = {verb for rule in only(objects, "ClusterRole")["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}


@pytest.mark.parametrize("values", [COLLECTOR, COLLECTOR_ALL, MINIMAL], ids=lambda path: path.stem)
def test_the_real_collector_accepts_what_the_chart_mounts(values, tmp_path):
    objects = render(values)
    accepted(objects, only(objects, "StatefulSet"), tmp_path)


def accepted(objects, workload, tmp_path):
    """The real collector validates the files that a workload mounts, by its arguments and environment."""
    for name, text in only(objects, "ConfigMap", "-collector")["data"].items():
        (tmp_path / name).write_text(text)
    [container] = workload["spec"]["template"]["spec"]["containers"]
    variables = {name: value if isinstance(value, str) else "127.0.0.1" for name, value in environment(container).items()}
    variables |= {"OTELCOL_DATA": str(tmp_path / "data"), "OTLP_TOKEN_FILE": __file__}
    arguments = [argument.replace("/etc/otelcol/", f"{tmp_path}/") for argument in container["args"]]
    built = subprocess.run([ROOT / "tests/setup/collector.sh"], stdout=subprocess.PIPE, text=True, check=True)
    collector = built.stdout.splitlines()[-1]
    run = subprocess.run([collector, "validate", *arguments], env=variables, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run.stderr
    assert "unset environment variable" not in run.stderr


def test_balancers_stand_before_several_gateways_and_find_them_by_a_headless_service(tmp_path):
    objects = render(COLLECTOR_MANY)
    gateways, balancers = only(objects, "StatefulSet"), only(objects, "Deployment", "-balancer")
    assert (gateways["spec"]["replicas"], balancers["spec"]["replicas"]) == (3, 2)
    front, back = only(objects, "Service", "-collector"), only(objects, "Service", "-headless")

    def selected(service, workload):
        return service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()

    assert (selected(front, balancers), selected(front, gateways)) == (True, False), "senders reach the balancers"
    assert (selected(back, balancers), selected(back, gateways)) == (False, True)
    assert back["spec"]["clusterIP"] == "None"
    [container] = balancers["spec"]["template"]["spec"]["containers"]
    settings = environment(container)
    assert settings["GATEWAY_HOSTNAME"] == back["metadata"]["name"]
    assert settings["OTLP_TOKEN"] == {"secretKeyRef": {"name": "telemetry-keys", "key": "token"}}
    # nothing changes for the sidecars
    assert environment(web(objects).sidecar)["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://{front['metadata']['name']}:4317"
    accepted(objects, balancers, tmp_path)
    accepted(objects, gateways, tmp_path)


def test_one_gateway_needs_no_balancer():
    objects = render(COLLECTOR)
    names = {item["metadata"]["name"] for item in objects}
    assert not [name for name in names if name.endswith(("-balancer", "-headless"))]
    assert "balancer.yaml" not in only(objects, "ConfigMap", "-collector")["data"]


def test_the_packaged_chart_holds_the_collector_s_files_themselves(tmp_path):
    run = helm("package", CHART, "--destination", tmp_path)
    assert run.returncode == 0, run.stderr
    [archive] = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packed:
        for name in ("gateway.yaml", "balancer.yaml", "vendors/datadog.yaml", "vendors/newrelic.yaml", "vendors/sentry.yaml"):
            member = packed.getmember(f"content-factory-sidecar/files/{name}")
            assert member.isreg()
            assert packed.extractfile(member).read() == (ROOT / "otel-collector" / name).read_bytes()


def test_the_notes_say_where_to_look():
    run = helm("install", "shop", CHART, "--values", COLLECTOR, "--dry-run=client")
    assert run.returncode == 0, run.stderr
    notes = run.stdout.partition("NOTES:")[2]
    assert "sidecar 18000 -> application 8000" in notes
    assert "newrelic" in notes and "datadog" not in notes


def notes(*settings: str) -> str:
    """What Helm says after an installation with these settings."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    run = helm("install", "shop", CHART, "--values", DEFAULT, "--dry-run=client", *flags)
    assert run.returncode == 0, run.stderr
    return run.stdout.partition("NOTES:")[2]


def test_the_notes_say_how_the_application_finds_the_egress_port_until_it_does():
    enabled = "sidecar.egress.enabled=true"
    told = '{name: OPENAI_BASE_URL, value: "http://127.0.0.1:18001/v1"}'
    assert "127.0.0.1:18001 of each pod -> https://api.openai.com" in notes(enabled) and told in notes(enabled)
    elsewhere = notes(enabled, "sidecar.ports.egress=9001", "sidecar.config.egress.upstream=https://ai.example")
    assert "127.0.0.1:9001 of each pod -> https://ai.example" in elsewhere and "http://127.0.0.1:9001/v1" in elsewhere
    set_already = notes(enabled, "web.env[0].name=OPENAI_BASE_URL", "web.env[0].value=http://127.0.0.1:18001/v1")
    assert "of each pod" in set_already and told not in set_already
    assert "OPENAI" not in notes()


def test_the_notes_say_what_a_browser_is_to_be_given_where_there_are_tokens():
    assert "give one of the tokens in Secret admin-tokens as the password" in notes("sidecar.admin.tokens.existingSecret=admin-tokens")
    assert "password" not in notes()
