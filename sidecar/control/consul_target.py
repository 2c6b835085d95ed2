"""Where the Consul agent is and how to speak to it: the settings, filled up from Consul's own environment variables.

We read addresses ourselves: py-consul takes no unix sockets, no address without a port, and loses the brackets of
`[::1]`. What the file says comes before the environment. Nothing here opens a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from sidecar.control.settings import ConsulSettings

DEFAULT_ADDRESS = "127.0.0.1:8500"
DEFAULT_PORT = 8500  # Consul's HTTP port, for an address that names neither port nor scheme
SCHEME_PORTS = {"http": 80, "https": 443}  # for a URL without a port, as Consul's own client
BRACKETS = "an IPv6 address needs brackets, as in [::1]:8500"
TRUE_WORDS = frozenset(("1", "t", "T", "true", "True", "TRUE"))  # Go's strconv.ParseBool, which Consul uses


class AgentAddress(Struct, frozen=True):
    """Where requests go. `socket` is the path of a unix socket and then host and port mean nothing."""

    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    socket: str = ""

    @property
    def label(self) -> str:
        """How messages name it."""
        if self.socket:
            return f"unix://{self.socket}"
        prefix = "https://" if self.scheme == "https" else ""
        return f"{prefix}{self.authority}"

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Target(Struct, frozen=True, kw_only=True):
    """An agent: the settings after the environment has been asked."""

    address: AgentAddress
    token: str = ""
    token_file: str = ""
    namespace: str = ""
    partition: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify: bool = True

    @property
    def exposes_token(self) -> bool:
        """Whether a token leaves this machine in the clear (SE-44)."""
        if not (self.token or self.token_file) or self.address.scheme == "https" or self.address.socket:
            return False
        return not (self.address.host in ("localhost", "::1") or self.address.host.startswith("127."))

    def __repr__(self) -> str:
        return f"<Consul {self.address.label}>"  # never the token


def resolve_target(settings: ConsulSettings, environment: Mapping[str, str]) -> Target:
    """The agent that is meant. Raises ValueError with a sentence when an address makes no sense."""
    if settings.address:
        where, origin = settings.address, "registry.consul.address"
    elif environment.get("CONSUL_HTTP_ADDR"):
        where, origin = environment["CONSUL_HTTP_ADDR"], "CONSUL_HTTP_ADDR"
    else:
        where, origin = DEFAULT_ADDRESS, "the default address"
    secure = environment.get("CONSUL_HTTP_SSL", "") in TRUE_WORDS
    try:
        parsed = parse_address(where, secure=secure)
    except ValueError as error:
        raise ValueError(f"{origin} is {where!r}: {error}") from None
    token, token_file = settings.token or "", settings.token_file or ""
    if not (token or token_file):
        token_file = environment.get("CONSUL_HTTP_TOKEN_FILE", "")
        token = "" if token_file else environment.get("CONSUL_HTTP_TOKEN", "")
    verify = settings.verify
    if verify is None:
        verify = environment.get("CONSUL_HTTP_SSL_VERIFY", "true") in TRUE_WORDS
    return Target(
        address=parsed,
        token=token,
        token_file=token_file,
        namespace=settings.namespace or environment.get("CONSUL_NAMESPACE", ""),
        partition=settings.partition or environment.get("CONSUL_PARTITION", ""),
        ca_file=settings.ca_file or environment.get("CONSUL_CACERT", ""),
        cert_file=settings.cert_file or environment.get("CONSUL_CLIENT_CERT", ""),
        key_file=settings.key_file or environment.get("CONSUL_CLIENT_KEY", ""),
        verify=verify,
    )


def parse_address(address: str, *, secure: bool = False) -> AgentAddress:
    """`host`, `host:port`, `[::1]:port`, `http(s)://host[:port]` or `unix:///path`. Raises ValueError with a reason.

    `secure` chooses https for an address that names no scheme.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError("a unix socket needs an absolute path, as in unix:///run/consul.sock")
        return AgentAddress(socket=path)
    named = "://" in address
    try:
        parts = urlsplit(address if named else f"//{address}")
    except ValueError:
        raise ValueError(BRACKETS) from None
    if parts.netloc.count(":") > 1 and "]" not in parts.netloc and "@" not in parts.netloc:
        raise ValueError(BRACKETS)
    scheme = parts.scheme or ("https" if secure else "http")
    if scheme not in SCHEME_PORTS:
        raise ValueError(f"the scheme {scheme!r} is not one of http, https and unix")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("only host and port belong here, no path")
    if parts.username or parts.password:
        raise ValueError("credentials do not belong in an address; use token_file")
    if not parts.hostname:
        raise ValueError("there is no host in it")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port is not a number from 1 to 65535") from None
    if port == 0:
        raise ValueError("the port is not a number from 1 to 65535")
    default = SCHEME_PORTS[scheme] if named else DEFAULT_PORT
    return AgentAddress(scheme=scheme, host=parts.hostname, port=port or default)
