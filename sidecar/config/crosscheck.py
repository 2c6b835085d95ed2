"""What must hold between settings, or of a text that only a parser can judge. Each check is a generator of findings.

A check is asked even when parts of the file could not be read: those are UNREADABLE, which absorbs questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sidecar.config.address import Bindings, HostPort, UnixPath, parse_host_port, parse_listen
from sidecar.config.model import Config, StaticEndpoint, UpstreamEntry
from sidecar.config.problem import guess
from sidecar.config.reader import UNREADABLE, Path, name_of
from sidecar.control.settings import DiscoverySettings, Selection
from sidecar.policy.builtin import BALANCERS
from sidecar.policy.match import MatchSettings
from sidecar.policy.method_settings import MethodSettings
from sidecar.policy.service_config import ServiceConfigError, parse_service_config
from sidecar.policy.settings import ZoneSettings

Finding = tuple[Path, str]
Check = Callable[[Config], Iterator[Finding]]

SHORTEST_KEEPALIVE = 10.0  # seconds, gRFC A8
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_METHOD = re.compile(r"/[^/*\s]+/([^/*\s]+|\*)")


def cross_check(config: Config) -> Iterator[Finding]:
    """Everything that is wrong with `config` although each value alone is right."""
    for check in CHECKS:
        yield from check(config)


def check_registry(config: Config) -> Iterator[Finding]:
    registry = config.registry
    if registry.consul and registry.file:
        yield ("registry", "file"), "registry.consul and registry.file are both given; keep one of them"
    if not registry.consul:
        return
    consul, path = registry.consul, ("registry", "consul")
    if isinstance(consul.address, str):
        try:
            parse_consul_address(consul.address)
        except ValueError as error:
            yield (*path, "address"), f"registry.consul.address: {error}"
    if consul.token and consul.token_file:
        yield (*path, "token"), "registry.consul has both token and token_file; keep token_file"
    if (consul.cert_file is None) != (consul.key_file is None):
        given, other = ("cert_file", "key_file") if consul.cert_file else ("key_file", "cert_file")
        yield (*path, given), f"registry.consul.{given} needs {other} beside it"


def check_service(config: Config) -> Iterator[Finding]:
    service = config.service
    if not service:
        return
    if not has_registry(config):
        yield (
            ("service",),
            "service is given, but no registry to register it with; set registry.consul or registry.file",
        )
    check, path = service.check, ("service", "check")
    kinds = [kind for kind in ("grpc", "http", "tcp") if getattr(check, kind)]
    if len(kinds) > 1:
        yield (*path, kinds[1]), f"service.check has {' and '.join(kinds)}; keep one of them"
    if check.by == "agent" and config.registry.file:
        yield (*path, "by"), "service.check.by: a file registry has no agent that could probe; leave it at sidecar"
    if check.ttl is not None and check.ttl < check.interval:
        yield (*path, "ttl"), "service.check.ttl is shorter than interval, so it would lapse between two probes"


def check_listeners(config: Config) -> Iterator[Finding]:
    """Every address can be bound, none twice, and none is reachable from outside unless that was asked for."""
    bindings = Bindings()
    for path, text in _listen_texts(config):
        name = name_of(path)
        try:
            address = parse_listen(text)
        except ValueError as error:
            yield path, f"{name}: {error}"
            continue
        if isinstance(address, UnixPath) and path[0] == "admin":
            yield path, f"{name} must be host:port"
        elif path != ("admin", "probe_listen") and _remote(address) and config.allow_remote_listeners is False:
            hint = "; for probes from outside set admin.probe_listen" if path[0] == "admin" else ""
            yield path, f"{name} is not a loopback address; use 127.0.0.1, or set allow_remote_listeners: true{hint}"
        twin = bindings.take(address, name)
        if twin is not None:
            yield path, f"{name} '{text}' is taken already by {twin}"


def check_upstreams(config: Config) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, entry in enumerate(config.upstreams):
        path: Path = ("upstreams", index)
        key, word = ("name", entry.name) if entry.name else ("service", entry.service)
        if is_text(word) and first.setdefault(word, index) != index:
            hint = "" if entry.name else "; give one of them a name of its own"
            sentence = f"upstreams[{index}].{key} '{word}' is taken already by upstreams[{first[word]}]{hint}"
            yield (*path, key), sentence
        if entry.endpoints is None and not has_registry(config):
            yield path, f"upstreams[{index}] has no endpoints, and no registry is set that could be asked for them"
        if is_text(entry.balancer) and entry.balancer not in BALANCERS and not _CLASS.fullmatch(entry.balancer):
            near = guess(entry.balancer, BALANCERS)
            sentence = f"upstreams[{index}].balancer '{entry.balancer}' is neither a balancer nor module:Class{near}"
            yield (*path, "balancer"), sentence
        kinds = [kind for kind in ("grpc", "http", "tcp") if getattr(entry.health_check, kind, None)]
        if len(kinds) > 1:
            sentence = f"upstreams[{index}].health_check has {' and '.join(kinds)}; keep one of them"
            yield (*path, "health_check", kinds[1]), sentence
        hash_on = entry.balancing.hash_on
        if is_text(hash_on) and hash_on.endswith("-bin"):
            sentence = f"upstreams[{index}].balancing.hash_on '{hash_on}': a binary header cannot be hashed on"
            yield (*path, "balancing", "hash_on"), sentence
        aware = entry.balancing.zone_aware
        if isinstance(aware, ZoneSettings) and not aware.own and config.zone == "" and not config.registry.consul:
            sentence = (
                f"upstreams[{index}].balancing.zone_aware needs the sidecar's zone: set own, or service.meta.zone"
            )
            yield (*path, "balancing", "zone_aware"), sentence
        if is_text(entry.ejection.classifier) and not _CLASS.fullmatch(str(entry.ejection.classifier)):
            sentence = f"upstreams[{index}].ejection.classifier '{entry.ejection.classifier}' is not module:function"
            yield (*path, "ejection", "classifier"), sentence
        yield from _check_discovery(config, entry.discovery, (*path, "discovery"))


def check_methods(config: Config) -> Iterator[Finding]:
    """Every method can be one of gRPC's: a service, and its method or `*` for all of them."""
    for index, entry in enumerate(config.upstreams):
        for name in entry.methods:
            if not _METHOD.fullmatch(name):
                path: Path = ("upstreams", index, "methods", name)
                yield path, f"{name_of(path[:3])} '{name}' is neither /pkg.Service/Method nor /pkg.Service/*"


def check_retries(config: Config) -> Iterator[Finding]:
    """The retries of an upstream and of its methods could happen as they are written."""
    for owner, settings in _method_sections(config):
        if settings.retry and settings.hedge:
            yield (*owner, "hedge"), f"{name_of(owner)} has retry and hedge; an RPC is governed by one of them"
        retry, path = settings.retry, (*owner, "retry")
        if not retry:
            continue
        if retry.per_try_timeout > 0 and not retry.codes and not retry.idempotent:
            sentence = "has per_try_timeout, which needs codes or idempotent: true: what is given up may have run"
            yield (*path, "per_try_timeout"), f"{name_of(path)} {sentence}"
        if retry.backoff_base > retry.backoff_max:
            yield (*path, "backoff_base"), f"{name_of(path)}: backoff_base is above backoff_max"


def check_service_configs(config: Config) -> Iterator[Finding]:
    """gRPC's service configs, which are read in full by now, say what can be done."""
    for index, entry in enumerate(config.upstreams):
        if is_text(entry.service_config):
            path: Path = ("upstreams", index, "service_config")
            try:
                parse_service_config(entry.service_config or "")
            except ServiceConfigError as error:
                yield from ((path, f"{name_of(path)}: {problem}") for problem in error.problems)


def _check_discovery(config: Config, discovery: DiscoverySettings, path: Path) -> Iterator[Finding]:
    """A file registry knows less than Consul, and two levels with the same instances are one."""
    levels: list[tuple[Path, Selection]] = [(path, discovery)]
    if isinstance(discovery.failover, tuple):
        levels += [((*path, "failover", number), each) for number, each in enumerate(discovery.failover)]
    seen: dict[str, Path] = {}
    for place, level in levels:
        for key in ("filter", "datacenter"):
            if getattr(level, key) and config.registry.file:
                yield (*place, key), f"{name_of((*place, key))} needs Consul; a file registry has no such thing"
        taken = [getattr(level, key) for key in Selection.__struct_fields__]
        twin = seen.setdefault(repr(taken), place)
        if twin != place and not any(value is UNREADABLE for value in taken):
            yield place, f"{name_of(place)} takes the same instances as {name_of(twin)}, so it would never be used"


def check_endpoints(config: Config) -> Iterator[Finding]:
    for index, entry in enumerate(config.upstreams):
        if entry.endpoints is None:
            continue
        path: Path = ("upstreams", index, "endpoints")
        if entry.endpoints == ():
            yield path, f"{name_of(path)} is empty, so every RPC would fail; give an address or leave it out"
        if is_set(entry.discovery):
            yield (
                (*path[:2], "discovery"),
                f"upstreams[{index}] has endpoints, so discovery has no effect; keep one of them",
            )
        first: dict[str, int] = {}
        for number, each in enumerate(entry.endpoints):
            where: Path = (*path, number)
            text = each.address if isinstance(each, StaticEndpoint) else each
            if not is_text(text):
                continue
            where = (*where, "address") if isinstance(each, StaticEndpoint) else where
            try:
                parse_host_port(text)
            except ValueError as error:
                yield where, f"{name_of(where)}: {error}"
            if first.setdefault(text, number) != number:
                yield (
                    where,
                    f"{name_of(where)} '{text}' is endpoints[{first[text]}] already; use weight for a larger share",
                )


def check_routes(config: Config) -> Iterator[Finding]:
    """Every route leads to an upstream that there is, and every upstream can be reached."""
    names = [entry.known_as for entry in config.upstreams if is_text(entry.known_as)]
    reached: set[str] = set()
    for index, entry in enumerate(config.upstreams):
        if entry.routes and entry.listen is None:
            path: Path = ("upstreams", index, "routes")
            yield path, f"{name_of(path)} are never asked, as the app cannot send here: give listen, or leave them out"
        for number, route in enumerate(entry.routes):
            path = ("upstreams", index, "routes", number)
            yield from check_match((*path, "match"), route.match)
            if route.sticky and route.sticky.endswith("-bin"):
                yield (*path, "sticky"), f"{name_of(path)}.sticky '{route.sticky}': a binary header cannot be hashed on"
            if not any(target.weight for target in route.to) and isinstance(route.to, tuple):
                yield (*path, "to"), f"{name_of(path)}.to has no target with a weight, so that it leads nowhere"
            for place, target in enumerate(route.to):
                reached.add(target.upstream)
                if is_text(target.upstream) and target.upstream not in names:
                    where: Path = (*path, "to", place, "upstream")
                    yield where, f"{name_of(where)} '{target.upstream}' is no upstream{guess(target.upstream, names)}"
        mirror, path = entry.mirror, ("upstreams", index, "mirror")
        if mirror is not None:
            reached.add(mirror.upstream)
            yield from check_match((*path, "match"), mirror.match)
            if is_text(mirror.upstream) and mirror.upstream not in names:
                sentence = f"{name_of((*path, 'upstream'))} '{mirror.upstream}' is no upstream"
                yield (*path, "upstream"), f"{sentence}{guess(mirror.upstream, names)}"
    for index, entry in enumerate(config.upstreams):
        if entry.listen is None and is_text(entry.known_as) and entry.known_as not in reached:
            sentence = f"upstreams[{index}] '{entry.known_as}' has no listen, and nothing leads to it"
            yield ("upstreams", index), f"{sentence}; give it an address, a route or a mirror"


def check_match(path: Path, match: MatchSettings) -> Iterator[Finding]:
    for number, header in enumerate(match.metadata):
        where: Path = (*path, "metadata", number)
        given = [key for key in ("exact", "prefix", "absent") if getattr(header, key) not in (None, False)]
        if len(given) > 1:
            yield (*where, given[1]), f"{name_of(where)} has {' and '.join(given)}; keep one of them"
        if is_text(header.name) and header.name.endswith("-bin"):
            sentence = f"'{header.name}': the value of a binary header cannot be written"
            yield (*where, "name"), f"{name_of((*where, 'name'))} {sentence}"


def check_faults(config: Config) -> Iterator[Finding]:
    for index, entry in enumerate(config.upstreams):
        for number, fault in enumerate(entry.faults):
            path: Path = ("upstreams", index, "faults", number)
            yield from check_match((*path, "match"), fault.match)
            if fault.abort is not None and fault.reset is True:
                yield (*path, "reset"), f"{name_of(path)} has abort and reset; keep one of them"
            if (fault.delay, fault.abort, fault.reset, fault.bandwidth) == (0.0, None, False, 0):
                yield path, f"{name_of(path)} does nothing; give delay, abort, reset or bandwidth"


def check_order(config: Config) -> Iterator[Finding]:
    """Pairs of which the first must not exceed the second."""
    if config.buffers.soft_limit > config.buffers.hard_limit:
        yield ("buffers", "soft_limit"), "buffers.soft_limit is above buffers.hard_limit"
    for index, entry in enumerate(config.upstreams):
        adaptive = entry.limits.adaptive
        if adaptive is not None and adaptive.min_limit > adaptive.max_limit:
            limit = ("upstreams", index, "limits", "adaptive")
            yield (*limit, "min_limit"), f"{name_of(limit)}: min_limit is above max_limit"
        if entry.connection.backoff_base > entry.connection.backoff_max:
            path = ("upstreams", index, "connection")
            yield (*path, "backoff_base"), f"{name_of(path)}: backoff_base is above backoff_max"
        if entry.ejection.first_time > entry.ejection.max_time:
            path = ("upstreams", index, "ejection")
            yield (*path, "first_time"), f"{name_of(path)}: first_time is above max_time"
        if 0 < entry.connection.keepalive_interval < SHORTEST_KEEPALIVE:
            where: Path = ("upstreams", index, "connection", "keepalive_interval")
            yield where, f"{name_of(where)} must be 0 or at least {SHORTEST_KEEPALIVE:g}s; servers punish more PINGs"


CHECKS: tuple[Check, ...] = (
    check_service,
    check_registry,
    check_listeners,
    check_upstreams,
    check_methods,
    check_retries,
    check_service_configs,
    check_endpoints,
    check_routes,
    check_faults,
    check_order,
)


def has_registry(config: Config) -> bool:
    """Whether there is a registry to register with and to ask."""
    return config.registry.consul is not None or config.registry.file is not None


def is_set(discovery: object) -> bool:
    """Whether it asks for anything but the default."""
    return isinstance(discovery, DiscoverySettings) and discovery != DiscoverySettings()


def is_text(value: object) -> bool:
    """Whether a text setting could be read."""
    return isinstance(value, str)


def parse_consul_address(text: str) -> None:
    """Raises ValueError unless it is `host:port`, `http(s)://host:port` or `unix:///path`."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        parse_host_port(text)
    elif scheme == "unix":
        if not rest.startswith("/"):
            raise ValueError(f"'{text}' needs an absolute path, as in unix:///run/consul.sock")
    elif scheme in ("http", "https"):
        authority = rest.removesuffix("/")
        if any(mark in authority for mark in "/?#@"):
            raise ValueError(f"'{text}' must end after the port")
        parse_host_port(authority)
    else:
        raise ValueError(f"'{scheme}' is none of http, https and unix")


def _listen_texts(config: Config) -> Iterator[tuple[Path, str]]:
    for key in ("listen", "probe_listen"):
        text = getattr(config.admin, key)
        if isinstance(text, str):
            yield ("admin", key), text
    for index, entry in enumerate(config.upstreams):
        if isinstance(entry.listen, str):
            yield ("upstreams", index, "listen"), entry.listen


def _method_sections(config: Config) -> Iterator[tuple[Path, UpstreamEntry | MethodSettings]]:
    """Everything that holds the sections of a method, and where it stands."""
    for index, entry in enumerate(config.upstreams):
        path: Path = ("upstreams", index)
        yield path, entry
        for name in entry.methods:
            yield (*path, "methods", name), entry.methods[name]


def _remote(address: HostPort | UnixPath) -> bool:
    return isinstance(address, HostPort) and not address.loopback
