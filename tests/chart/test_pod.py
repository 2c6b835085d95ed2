"""What the pod is like: when the sidecar starts and ends, what it may do, and what the application is handed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.chart.helm import ROOT, Manifest, ci_values, render, render_texts

pytestmark = pytest.mark.once


def pod(manifests: dict[str, Manifest]) -> dict[str, Any]:
    return manifests["Deployment"]["spec"]["template"]["spec"]


def sidecar_of(manifests: dict[str, Manifest]) -> dict[str, Any]:
    (container,) = pod(manifests)["initContainers"]
    return container


def app_of(manifests: dict[str, Manifest]) -> dict[str, Any]:
    (container,) = pod(manifests)["containers"]
    return container


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container.get("env", [])}


def test_the_sidecar_is_an_init_container_that_goes_on() -> None:
    sidecar = sidecar_of(render({}))
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["args"] == ["run", "--config", "/etc/sidecar/sidecar.yaml"]


def test_the_application_waits_until_the_sidecar_is_ready() -> None:
    probe = sidecar_of(render({"sidecar": {"startupSeconds": 90}}))["startupProbe"]
    assert probe["httpGet"]["path"] == "/ready"
    assert probe["periodSeconds"] * probe["failureThreshold"] == 90


def test_probes_go_to_the_port_that_the_configuration_opens() -> None:
    sidecar = sidecar_of(render({"config": {"admin": {"probe_listen": "0.0.0.0:20901"}}}))
    assert {each["name"]: each["containerPort"] for each in sidecar["ports"]} == {"probe": 20901}
    for probe, path in (("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/live")):
        assert sidecar[probe]["httpGet"] == {"path": path, "port": "probe"}


def test_the_pod_says_where_its_metrics_are() -> None:
    template = render({"podAnnotations": {"team": "shop"}})["Deployment"]["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "19901"
    assert annotations["prometheus.io/path"] == "/metrics"
    assert annotations["kubectl.kubernetes.io/default-container"] == "app"
    assert annotations["team"] == "shop"


def test_the_end_of_the_pod_begins_with_a_drain() -> None:
    manifests = render({"config": {"admin": {"listen": "127.0.0.1:20900"}}})
    command = sidecar_of(manifests)["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["sidecar", "drain", "--admin", "127.0.0.1:20900"]


@pytest.mark.parametrize(("propagation", "seconds"), [("5s", 5), ("1500ms", 2), (0.2, 1), ("0.1m", 6)])
def test_the_application_serves_on_until_callers_have_noticed(propagation: str | float, seconds: int) -> None:
    manifests = render({"config": {"drain": {"propagation": propagation}}, "terminationGracePeriodSeconds": 90})
    assert app_of(manifests)["lifecycle"] == {"preStop": {"sleep": {"seconds": seconds}}}


def test_a_kubernetes_without_sleep_hooks_gets_none() -> None:
    assert "lifecycle" not in app_of(render(ci_values("oldest")))


def test_an_application_with_hooks_of_its_own_keeps_them() -> None:
    hooks = {"preStop": {"exec": {"command": ["/bin/leave"]}}}
    assert app_of(render({"app": {"lifecycle": hooks}}))["lifecycle"] == hooks


def test_the_pod_meets_the_restricted_security_standard() -> None:
    manifests = render({})
    security = pod(manifests)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (sidecar_of(manifests), app_of(manifests)):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod(manifests).keys()
    assert not [volume for volume in pod(manifests)["volumes"] if "hostPath" in volume]


def test_the_sidecar_cannot_write_into_its_image() -> None:
    assert sidecar_of(render({}))["securityContext"]["readOnlyRootFilesystem"] is True


def test_no_service_account_token_is_in_the_pod() -> None:
    manifests = render({})
    assert pod(manifests)["automountServiceAccountToken"] is False
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod(manifests)["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]


def test_an_account_that_exists_is_used_and_not_made() -> None:
    manifests = render(ci_values("client"))
    assert "ServiceAccount" not in manifests
    assert pod(manifests)["serviceAccountName"] == "worker"


def test_resources_are_always_asked_for() -> None:
    manifests = render({})
    for container in (sidecar_of(manifests), app_of(manifests)):
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "cpu" not in container["resources"]["limits"]


def test_consul_is_sought_on_the_machine_of_the_pod() -> None:
    sidecar = sidecar_of(render({}))
    names = [each["name"] for each in sidecar["env"]]
    assert variables(sidecar)["CONSUL_HTTP_ADDR"] == "$(HOST_IP):8500"
    assert names.index("HOST_IP") < names.index("CONSUL_HTTP_ADDR"), "Kubernetes fills in only what stands above"


def test_the_token_comes_from_the_secret_as_a_file() -> None:
    manifests = render(ci_values("calls"))
    (volume,) = [each for each in pod(manifests)["volumes"] if each["name"] == "consul-token"]
    (mount,) = [each for each in sidecar_of(manifests)["volumeMounts"] if each["name"] == "consul-token"]
    path = f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    assert variables(sidecar_of(manifests))["CONSUL_HTTP_TOKEN_FILE"] == path
    assert volume["secret"]["secretName"] == "consul-token"
    assert "volumeMounts" not in app_of(manifests)


def test_without_a_secret_there_is_no_token() -> None:
    assert "CONSUL_HTTP_TOKEN_FILE" not in variables(sidecar_of(render({})))


def test_the_application_is_handed_the_address_of_each_upstream() -> None:
    handed = variables(app_of(render(ci_values("calls"))))
    assert handed == {
        "UPSTREAM_ORDERS_ADDR": "127.0.0.1:15001",
        "UPSTREAM_PRICE_LIST_ADDR": "127.0.0.1:15002",
        "UPSTREAM_TAX_ADDR": "127.0.0.1:15003",
        "LOG_LEVEL": "info",
    }


def test_a_changed_configuration_reaches_the_sidecar_without_a_new_pod() -> None:
    manifests = render({})
    mounts = sidecar_of(manifests)["volumeMounts"]
    assert not [mount for mount in mounts if "subPath" in mount], "a subPath never sees a change"
    changed = render({"config": {"log": {"level": "debug"}}})
    assert changed["ConfigMap"] != manifests["ConfigMap"]
    assert changed["Deployment"] == manifests["Deployment"]


def test_services_of_the_namespace_leave_no_flags_in_the_environment() -> None:
    assert pod(render({}))["enableServiceLinks"] is False


def test_the_service_leads_to_the_port_that_is_registered() -> None:
    manifests = render({"config": {"service": {"port": 8443}}})
    (port,) = manifests["Service"]["spec"]["ports"]
    (opened,) = app_of(manifests)["ports"]
    assert (port["port"], port["targetPort"], opened) == (8443, "grpc", {"name": "grpc", "containerPort": 8443})
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["Service"]["spec"]["selector"].items() <= labels.items()


def test_an_application_that_only_calls_gets_no_service() -> None:
    manifests = render(ci_values("client"))
    assert "Service" not in manifests
    assert "ports" not in app_of(manifests)
    assert "lifecycle" not in app_of(manifests)


def test_without_an_image_of_its_own_the_application_is_the_greeter_of_the_demo() -> None:
    manifests = render({"config": {"service": {"port": 50_061}}})
    app = app_of(manifests)
    assert app["image"] == sidecar_of(manifests)["image"]
    assert app["command"] == ["python3", "-m", "sidecar.demo.greeter", "--host", "0.0.0.0", "--port", "50061"]


def test_the_greeter_starts_with_the_arguments_it_is_given() -> None:
    """Up to its first line; the port is a free one here."""
    _, *arguments = app_of(render({}))["command"]
    arguments[arguments.index("--port") + 1] = "0"
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as greeter:
        assert greeter.stdout is not None
        line = greeter.stdout.readline()
        greeter.terminate()
    assert "on 0.0.0.0:" in line
    assert greeter.returncode == 0


def test_a_digest_wins_over_the_tag() -> None:
    manifests = render(ci_values("client"))
    assert app_of(manifests)["image"].startswith("registry.example/worker@sha256:")
    assert sidecar_of(manifests)["image"].startswith("registry.example/sidecar@sha256:")


def test_the_notes_name_what_the_application_reaches() -> None:
    notes = render_texts(ci_values("calls"))["NOTES.txt"]
    assert "price-list at 127.0.0.1:15002 (UPSTREAM_PRICE_LIST_ADDR)" in notes
    assert "registers the application as shop, port 50051" in notes
