"""`check-export` through the real gateway: each hop's word, up to the vendors' acceptance."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import vendors
from gateway import TOKEN, Gateway
from sidecar import binary


def check_export(gateway: Gateway, folder: Path) -> tuple[int, str]:
    """Runs it as an operator would; returns the exit code and what it said."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": gateway.grpc,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
        "SIDECAR_TELEMETRY__RECEIPTS__URL": f"http://{gateway.address}:8888/metrics",
    }
    done = subprocess.run(
        [binary(), "check-export", "--wait", "30s"], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout


def test_each_vendor_has_the_marked_items_when_the_check_says_so(tmp_path: Path):
    with vendors.Vendors() as three, Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry")) as gateway:
        code, said = check_export(gateway, tmp_path)
        assert code == 0, said
        mark = re.search(r"trace ([0-9a-f]{32})", said)[1]
        expected = {
            "Datadog": ["traces", "metrics", "logs"],
            "New Relic": ["traces", "metrics", "logs"],
            "Sentry": ["traces", "logs"],
        }
        for vendor, signals in expected.items():
            assert re.findall(rf"^  (\w+) +at {vendor} \(\S+\): accepted$", said, re.MULTILINE) == signals, said
        for vendor in (three.datadog, three.new_relic, three.sentry):
            assert mark in {span.trace_id.hex() for span in vendor.spans()}
            assert mark in {record.trace_id.hex() for record in vendor.log_records()}
        for vendor in (three.datadog, three.new_relic):
            assert list(vendor.metrics("content_factory.export.checks"))


def test_a_vendor_that_refuses_is_named_and_the_others_are_not(tmp_path: Path):
    with vendors.Vendors() as three:
        keys = three.environment("datadog", "newrelic", "sentry") | {"NEW_RELIC_LICENSE_KEY": "a-wrong-key"}
        with Gateway(tmp_path, keys) as gateway:
            code, said = check_export(gateway, tmp_path)
    assert code == 1, said
    assert len(re.findall(r"at New Relic \(\S+\): refused: given up", said)) == 3, said
    assert len(re.findall(r"at (?:Datadog|Sentry) \(\S+\): accepted", said)) == 5, said
