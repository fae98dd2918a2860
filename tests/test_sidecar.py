"""The configuration for a sidecar, and the pod that runs it."""

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cio_proxy.config import load
from cio_proxy.model import Settings
from cio_proxy.rules import RULES

from .conftest import running

pytestmark = pytest.mark.once

CONFIG = Path(__file__).parents[1] / "config"
SIDECAR = CONFIG / "sidecar.yaml"
RESOURCES: list[dict[str, Any]] = list(yaml.safe_load_all((CONFIG / "kubernetes" / "sidecar.yaml").read_text()))
CONFIG_MAP, DEPLOYMENT = RESOURCES
POD = DEPLOYMENT["spec"]["template"]
PROXY, APP = POD["spec"]["initContainers"][0], POD["spec"]["containers"][0]
NATIVE_SIDECARS = "1.29"
"""The first version of Kubernetes that has them switched on."""


@pytest.fixture
def settings() -> Settings:
    return load(SIDECAR, {}, {}, rules=[rule.info for rule in RULES]).settings


def test_the_sidecars_configuration_loads_without_warnings_and_only_watches(settings: Settings) -> None:
    assert load(SIDECAR, {}, {}, rules=[rule.info for rule in RULES]).warnings == ()
    assert (settings.upstream, settings.enforcement, settings.people) == ("live", "observe", "partial")
    assert settings.listen.host == "127.0.0.1"


def test_the_sidecars_configuration_starts_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its folders moved, and a home that cannot be written: all it writes is in them."""
    monkeypatch.setenv("HOME", "/dev/null")
    config = tmp_path / "cio-proxy.yaml"
    config.write_text(SIDECAR.read_text().replace("/var/lib/cio-proxy", f"{tmp_path}/volume"))
    (tmp_path / "volume").mkdir()
    with running(tmp_path, "--config", str(config)) as (process, ready):
        assert ready["upstream"] == "live"
        with urllib.request.urlopen(
            f"http://127.0.0.1:{ready['admin'].rpartition(':')[2]}/readyz", timeout=20
        ) as answer:
            assert json.load(answer) == {"ready": True, "degraded": []}
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "upstream is live" in err
        assert "findings: none" in err
    assert {path.name for path in tmp_path.iterdir()} == {"cio-proxy.yaml", "volume"}


@pytest.mark.parametrize("version", [NATIVE_SIDECARS, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource["kind"])
def test_kubernetes_accepts_the_example(resource: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_the_validator_sees_a_misspelt_key() -> None:
    wrong = json.loads(json.dumps(DEPLOYMENT).replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(wrong, NATIVE_SIDECARS, strict=True)


def test_the_config_map_holds_the_sidecars_configuration() -> None:
    assert CONFIG_MAP["data"] == {"cio-proxy.yaml": SIDECAR.read_text()}
    (volume,) = (each for each in POD["spec"]["volumes"] if "configMap" in each)
    (mount,) = (each for each in PROXY["volumeMounts"] if each["name"] == volume["name"])
    assert volume["configMap"]["name"] == CONFIG_MAP["metadata"]["name"]
    assert PROXY["args"] == ["run", "--config", f"{mount['mountPath']}/cio-proxy.yaml"]


def test_ports_probes_and_scrapes_meet_what_the_configuration_listens_on(settings: Settings) -> None:
    ports = {each["name"]: each["containerPort"] for each in PROXY["ports"]}
    assert ports == {"metrics": settings.admin.port}
    assert settings.admin.host == "0.0.0.0"
    probes = {name: PROXY[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    scrape = POD["metadata"]["annotations"]
    assert scrape["prometheus.io/scrape"] == "true"
    assert int(scrape["prometheus.io/port"]) == settings.admin.port
    assert {"name": "CIO_PROXY_URL", "value": f"http://{settings.listen}"} in APP["env"]


def test_the_proxy_writes_on_its_volume_alone_and_may_do_nothing_else(settings: Settings) -> None:
    (state,) = (each["name"] for each in POD["spec"]["volumes"] if "emptyDir" in each)
    (mount,) = (each["mountPath"] for each in PROXY["volumeMounts"] if each["name"] == state)
    for path in (settings.state, settings.journal.path):
        assert Path(str(path)).is_relative_to(mount)
    for container in (PROXY, APP):
        security = container["securityContext"]
        assert security["runAsUser"] > 0
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_proxy_outlives_the_app_and_has_time_to_drain(settings: Settings) -> None:
    assert PROXY["restartPolicy"] == "Always"
    assert POD["spec"]["terminationGracePeriodSeconds"] > settings.timeouts.drain
