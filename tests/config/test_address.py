"""`host:port` and Unix sockets, as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.address import Bindings, HostPort, UnixPath, parse_host_port, parse_listen


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:15001", HostPort("127.0.0.1", 15001)),
        ("[::1]:15001", HostPort("::1", 15001)),
        ("Orders.internal:1", HostPort("orders.internal", 1)),
        ("localhost:65535", HostPort("localhost", 65535)),
    ],
)
def test_a_host_and_a_port_are_told_apart(text: str, address: HostPort) -> None:
    assert parse_host_port(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        ":80",
        "::1:80",
        "[::1]",
        "[x]:80",
        "a b:80",
        "127.0.0.1:",
        "host:0",
        "host:65536",
        "host:-1",
        "host:٣",
        "1.2.3:80",
        "300.1.1.1:80",
        "http://a:80",
        "a/b:80",
        "::1",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_host_port(text)


def test_a_bare_ipv6_address_is_answered_with_brackets() -> None:
    with pytest.raises(ValueError, match=r"write an IPv6 address in brackets"):
        parse_host_port("fe80::1:80")


def test_a_listener_may_be_a_unix_socket_or_any_free_port() -> None:
    assert parse_listen("unix:/run/orders.sock") == UnixPath("/run/orders.sock")
    assert parse_listen("127.0.0.1:0") == HostPort("127.0.0.1", 0)


@pytest.mark.parametrize("text", ["unix:orders.sock", "unix:", "unix:/" + "x" * 107])
def test_a_unix_socket_needs_an_absolute_path_that_fits(text: str) -> None:
    with pytest.raises(ValueError):
        parse_listen(text)


@pytest.mark.parametrize(
    ("one", "other", "clashes"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("localhost:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("10.0.0.1:1", "0.0.0.0:1", True),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "127.0.0.1:1", False),
    ],
)
def test_two_listeners_clash_when_both_cannot_be_bound(one: str, other: str, clashes: bool) -> None:
    bindings = Bindings()
    assert bindings.take(parse_listen(one), "first") is None
    assert bindings.take(parse_listen(other), "second") == ("first" if clashes else None)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("orders", False),
        ("localhost.evil", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert HostPort(host, 1).loopback is loopback


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        parse_listen(text)
    except ValueError as error:
        assert str(error)
