"""Where Consul is: addresses of every form, and the environment behind the settings."""

from __future__ import annotations

import pytest

from sidecar.control.consul import ConsulRegistry
from sidecar.control.consul_target import AgentAddress, parse_address, resolve_target
from sidecar.control.settings import ConsulSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8500", AgentAddress("http", "127.0.0.1", 8500)),
        ("consul.internal", AgentAddress("http", "consul.internal", 8500)),
        ("[::1]:8501", AgentAddress("http", "::1", 8501)),
        ("[::1]", AgentAddress("http", "::1", 8500)),
        ("http://10.0.0.1:8500", AgentAddress("http", "10.0.0.1", 8500)),
        ("http://10.0.0.1:8500/", AgentAddress("http", "10.0.0.1", 8500)),
        ("https://consul.internal", AgentAddress("https", "consul.internal", 443)),
        ("http://consul.internal", AgentAddress("http", "consul.internal", 80)),
        ("https://[fd00::1]:8501", AgentAddress("https", "fd00::1", 8501)),
        ("unix:///run/consul.sock", AgentAddress(socket="/run/consul.sock")),
        ("unix:/run/consul.sock", AgentAddress(socket="/run/consul.sock")),
    ],
)
def test_every_form_of_an_address_is_understood(text: str, expected: AgentAddress) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unix://consul.sock", "absolute path"),
        ("ftp://10.0.0.1", "scheme 'ftp'"),
        ("10.0.0.1:8500/ui", "no path"),
        ("http://user:pass@10.0.0.1:8500", "credentials"),
        ("10.0.0.1:http", "port is not a number"),
        ("10.0.0.1:99999", "port is not a number"),
        ("10.0.0.1:0", "port is not a number"),
        (":8500", "no host"),
        ("http://", "no host"),
        ("::1:8500", "brackets"),
        ("http://[::1:8500", "brackets"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


def test_the_sentence_names_where_the_address_came_from() -> None:
    with pytest.raises(ValueError, match=r"registry\.consul\.address is 'ftp://x': the scheme"):
        ConsulRegistry(ConsulSettings(address="ftp://x"), {})
    with pytest.raises(ValueError, match="CONSUL_HTTP_ADDR is 'ftp://x': the scheme"):
        ConsulRegistry(ConsulSettings(), {"CONSUL_HTTP_ADDR": "ftp://x"})


def test_labels_are_what_an_operator_would_type() -> None:
    labels = [parse_address(text).label for text in ("10.0.0.1:1", "[::1]:1", "https://c:1", "unix:///s")]
    assert labels == ["10.0.0.1:1", "[::1]:1", "https://c:1", "unix:///s"]


def test_without_settings_and_environment_it_is_the_local_agent() -> None:
    target = resolve_target(ConsulSettings(), {})
    assert target.address == AgentAddress("http", "127.0.0.1", 8500)
    assert (target.token, target.token_file, target.verify) == ("", "", True)


def test_the_environment_fills_what_the_settings_leave_out() -> None:
    target = resolve_target(
        ConsulSettings(),
        {
            "CONSUL_HTTP_ADDR": "10.0.0.1:8500",
            "CONSUL_HTTP_TOKEN": "t",
            "CONSUL_HTTP_SSL": "true",
            "CONSUL_HTTP_SSL_VERIFY": "false",
            "CONSUL_CACERT": "ca",
            "CONSUL_CLIENT_CERT": "cert",
            "CONSUL_CLIENT_KEY": "key",
            "CONSUL_NAMESPACE": "ns",
            "CONSUL_PARTITION": "part",
        },
    )
    assert target.address == AgentAddress("https", "10.0.0.1", 8500)
    assert (target.token, target.ca_file, target.cert_file, target.key_file) == ("t", "ca", "cert", "key")
    assert (target.namespace, target.partition, target.verify) == ("ns", "part", False)


def test_the_settings_come_before_the_environment() -> None:
    settings = ConsulSettings(address="http://a:1", token="mine", verify=True, namespace="team")
    environment = {
        "CONSUL_HTTP_ADDR": "https://b:2",
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_TOKEN": "theirs",
        "CONSUL_HTTP_TOKEN_FILE": "/theirs",
        "CONSUL_HTTP_SSL_VERIFY": "0",
        "CONSUL_NAMESPACE": "other",
    }
    target = resolve_target(settings, environment)
    assert (target.address, target.token, target.token_file) == (AgentAddress("http", "a", 1), "mine", "")
    assert (target.verify, target.namespace) == (True, "team")


def test_a_token_file_comes_before_a_token_in_the_environment() -> None:
    target = resolve_target(ConsulSettings(), {"CONSUL_HTTP_TOKEN": "t", "CONSUL_HTTP_TOKEN_FILE": "/f"})
    assert (target.token, target.token_file) == ("", "/f")


@pytest.mark.parametrize(
    ("address", "token", "exposed"),
    [
        ("127.0.0.1:8500", "t", False),
        ("[::1]:8500", "t", False),
        ("10.0.0.1:8500", "t", True),
        ("10.0.0.1:8500", None, False),
        ("https://10.0.0.1:8500", "t", False),
        ("unix:///run/consul.sock", "t", False),
    ],
)
def test_a_token_that_leaves_the_machine_in_the_clear_is_warned_of(
    caplog: pytest.LogCaptureFixture, address: str, token: str | None, exposed: bool
) -> None:
    ConsulRegistry(ConsulSettings(address=address, token=token), {})
    assert any("travels unencrypted" in record.message for record in caplog.records) is exposed
