"""Who we are: address and id, from the settings and the environment."""

from __future__ import annotations

import socket

import pytest

from sidecar.control.instance import instance_of, outgoing_address
from sidecar.control.settings import ServiceSettings

APP = ServiceSettings(name="orders", port=50051)


def test_the_configured_address_comes_first() -> None:
    settings = ServiceSettings(name="orders", port=50051, address="10.1.1.1")
    instance = instance_of(settings, "10.0.0.1", {"POD_IP": "10.2.2.2"})
    assert (instance.address, instance.id) == ("10.1.1.1", "orders-10.1.1.1-50051")


def test_a_pod_is_at_its_ip_and_its_uid_is_part_of_the_id() -> None:
    instance = instance_of(APP, "127.0.0.1", {"POD_IP": "10.2.2.2", "POD_UID": "u-1"})
    assert (instance.address, instance.id) == ("10.2.2.2", "orders-10.2.2.2-50051-u-1")


def test_a_configured_id_is_taken_as_it_is() -> None:
    settings = ServiceSettings(name="orders", port=50051, id="orders-1")
    assert instance_of(settings, "", {"POD_UID": "u-1"}).id == "orders-1"


@pytest.mark.parametrize("registry", ["127.0.0.1", "::1", "localhost", ""])
def test_beside_its_registry_the_address_is_left_to_the_registry(registry: str) -> None:
    instance = instance_of(APP, registry, {})
    assert instance.address == ""
    assert instance.id == f"orders-{socket.gethostname()}-50051"


def test_a_registry_that_cannot_be_found_decides_nothing() -> None:
    assert outgoing_address("no-such-host.invalid") == ""


def test_the_same_settings_give_the_same_id() -> None:
    assert instance_of(APP, "", {}).id == instance_of(APP, "", {}).id
