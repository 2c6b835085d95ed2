"""A file to settings, or to every mistake at its place."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.config.loader import build_config, load_config
from sidecar.config.model import Config, StaticEndpoint, UpstreamEntry
from sidecar.config.problem import ConfigErrors
from sidecar.config.shape import fields_of, sections_of
from sidecar.control.settings import ConsulSettings, GrpcCheck, Selection
from sidecar.policy.method_settings import MethodSettings, TimeoutSettings

CONTRACT = """\
service: {name: greeter, port: 50051, check: {grpc: {}, interval: 2s}}   # the co-located app
registry: {consul: {address: "127.0.0.1:8500"}}
upstreams:
  - {service: orders, listen: "127.0.0.1:15001", balancer: least_request}
  - {service: prices, listen: "127.0.0.1:15002", endpoints: ["127.0.0.1:50061", "127.0.0.1:50062"]}   # static
admin: {listen: "127.0.0.1:19900"}
http2: {codec: auto}
"""

TEN_MISTAKES = """\
service:
  name: greeter
  port: 70000
  check: {grpc: , http: {}, interval: 2x}
registry: {consul: {adress: "127.0.0.1:8500"}}
upstreams:
  - {service: orders, listen: "127.0.0.1:15001", balancer: least_requests}
  - {service: orders, listen: "localhost:15001", balancr: x}
  - {service: prices, listen: "0.0.0.0:15002", endpoints: ["127.0.0.1:50061", "127.0.0.1"]}
http2: {codec: nativ}
"""


def load(text: str | bytes, environment: dict[str, str] | None = None, **overrides: str) -> Config:
    data = text.encode() if isinstance(text, str) else text
    flags = {key.replace("_", "."): value for key, value in overrides.items()}
    return build_config("sidecar.yaml", data, environment or {}, flags)


def problems(text: str | bytes, environment: dict[str, str] | None = None, **overrides: str) -> list[str]:
    try:
        load(text, environment, **overrides)
    except ConfigErrors as errors:
        return [str(problem) for problem in errors.problems]
    return []


def upstream(keys: str, top: str = "") -> str:
    return f"upstreams:\n  - {{service: a, listen: '127.0.0.1:1', endpoints: ['127.0.0.1:9'], {keys}}}\n{top}"


# === what loads ===


def test_the_contract_loads_as_written() -> None:
    config = load(CONTRACT)
    assert config.service is not None
    assert (config.service.name, config.service.port) == ("greeter", 50051)
    assert (config.service.check.grpc, config.service.check.tcp, config.service.check.interval) == (
        GrpcCheck(),
        None,
        2.0,
    )
    assert config.registry.consul == ConsulSettings(address="127.0.0.1:8500")
    assert [entry.service for entry in config.upstreams] == ["orders", "prices"]
    assert config.upstreams[1].endpoints == ("127.0.0.1:50061", "127.0.0.1:50062")
    assert config.admin.listen == "127.0.0.1:19900"
    assert config.http2.codec == "auto"


@pytest.mark.parametrize("form", ["grpc:", "grpc: {}", "grpc: null", "grpc: ~"])
def test_a_check_without_a_value_is_chosen(form: str) -> None:
    config = load(f"service:\n  name: a\n  port: 1\n  check:\n    {form}\nregistry:\n  consul:\n")
    assert config.service is not None
    assert config.service.check.grpc == GrpcCheck()
    assert config.registry.consul == ConsulSettings()


def test_an_empty_mapping_is_all_defaults() -> None:
    assert load("{}") == Config()


def test_words_that_yaml_takes_for_truth_stay_words() -> None:
    assert load("log: {access: off}").log.access == "off"
    assert load("service: {name: no, port: 1, meta: {on: yes, v: 1.10}}\nregistry: {consul: }").service is not None
    service = load("service: {name: no, port: 1, meta: {on: yes, v: 1.10}}\nregistry: {consul: }").service
    assert service is not None
    assert (service.name, service.meta) == ("no", {"on": "yes", "v": "1.10"})


def test_an_endpoint_may_be_a_text_or_a_section() -> None:
    (entry,) = load(
        "upstreams: [{service: a, listen: 'unix:/a', endpoints: ['a:1', {address: 'b:2', weight: 3}]}]"
    ).upstreams
    assert entry.endpoints == ("a:1", StaticEndpoint(address="b:2", weight=3))


def test_an_alias_stands_for_its_section() -> None:
    first, second = load(
        "upstreams:\n"
        "- {service: a, listen: '127.0.0.1:1', endpoints: ['h:1'], connection: &c {connect_timeout: 2s}}\n"
        "- {service: b, listen: '127.0.0.1:2', endpoints: ['h:1'], connection: *c}\n"
    ).upstreams
    assert first.connection == second.connection
    assert second.connection.connect_timeout == 2.0


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert load(b"\xef\xbb\xbflog: {level: debug}").log.level == "debug"


def test_variables_are_read_as_the_type_of_their_setting() -> None:
    text = "service: {name: '${NAME}', port: '${PORT}', id: '${ID:-}', check: {interval: '${EVERY:-3s}'}}"
    service = load(text + "\nregistry: {consul: }", {"NAME": "123", "PORT": "50051"}).service
    assert service is not None
    assert (service.name, service.port, service.id, service.check.interval) == ("123", 50051, None, 3.0)


def test_a_variable_can_never_add_a_key() -> None:
    (problem,) = problems("log: {level: '${LEVEL}'}", {"LEVEL": "info, access: all"})
    assert "log.level must be one of" in problem


def test_every_type_of_the_settings_can_be_read() -> None:
    for section in sections_of(Config):
        for field in fields_of(section):
            assert field.shape.description, f"{section.__name__}.{field.name} has no sentence"
    assert msgspec.convert(msgspec.to_builtins(load(CONTRACT)), Config) == load(CONTRACT)


# === precedence ===


def test_a_flag_wins_over_its_variable_and_that_over_the_file() -> None:
    file, environment = "log: {level: warning}", {"SIDECAR_LOG_LEVEL": "error"}
    assert load(file).log.level == "warning"
    assert load(file, environment).log.level == "error"
    assert load(file, environment, log_level="debug").log.level == "debug"


def test_a_wrong_variable_is_blamed_by_its_name() -> None:
    assert problems("{}", {"SIDECAR_CODEC": "nativ"}) == [
        "SIDECAR_CODEC: http2.codec must be one of auto, native, reference, not 'nativ', did you mean 'native'?"
    ]
    assert problems("{}", {"SIDECAR_CODEC": "auto"}, http2_codec="x") == [
        "--codec: http2.codec must be one of auto, native, reference, not 'x'"
    ]
    assert problems("{}", {"SIDECAR_ADMIN_LISTEN": "10.0.0.1:19900"})[0].startswith(
        "SIDECAR_ADMIN_LISTEN: admin.listen"
    )


def test_an_empty_variable_counts_as_unset() -> None:
    assert load("log: {level: warning}", {"SIDECAR_LOG_LEVEL": ""}).log.level == "warning"


# === mistakes ===


def test_ten_mistakes_are_ten_sentences_at_their_places() -> None:
    assert problems(TEN_MISTAKES) == [
        "sidecar.yaml:3:9: service.port must be a whole number from 1 to 65535, not 70000",
        "sidecar.yaml:4:25: service.check has grpc and http; keep one of them",
        "sidecar.yaml:4:39: service.check.interval has the unknown unit 'x' in '2x'; units are ms, s, m, h",
        "sidecar.yaml:5:21: unknown key 'adress' in registry.consul, did you mean 'address'?",
        "sidecar.yaml:7:60: upstreams[0].balancer 'least_requests' is neither a balancer nor module:Class,"
        " did you mean 'least_request'?",
        "sidecar.yaml:8:15: upstreams[1].service 'orders' is taken already by upstreams[0];"
        " give one of them a name of its own",
        "sidecar.yaml:8:31: upstreams[1].listen 'localhost:15001' is taken already by upstreams[0].listen",
        "sidecar.yaml:8:50: unknown key 'balancr' in upstreams[1], did you mean 'balancer'?",
        "sidecar.yaml:9:31: upstreams[2].listen is not a loopback address; use 127.0.0.1,"
        " or set allow_remote_listeners: true",
        "sidecar.yaml:9:79: upstreams[2].endpoints[1]: '127.0.0.1' is not host:port",
        "sidecar.yaml:10:16: http2.codec must be one of auto, native, reference, not 'nativ', did you mean 'native'?",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: the file is empty"),
        ("# only a comment\n", "1:1: the file is empty"),
        ("~", "1:1: the file is empty"),
        ("---\n", "1:1: the file is empty"),
        ("- a\n", "1:1: the file must be a section with keys such as service, registry, upstreams, not a list"),
        ("hello", "1:1: the file must be a section with keys such as service, registry, upstreams, not 'hello'"),
        ("a: [1,\n", "2:1: this is not YAML"),
        ("log: {}\n---\nlog: {}\n", "2:1: a second document starts here"),
        ("log: {}\nlog: {}\n", "2:1: the key 'log' was given already in line 1"),
        ("log: !env {level: info}", "1:6: the tag !env is not known"),
        ("? [a]\n: b\n", "1:3: a key must be a plain word, not a list"),
        ("log: &a {level: info}\nadmin: {<<: *a}", "2:9: merge keys (<<) are not read"),
        ("log: *nothing", "1:6: this is not YAML: found undefined alias"),
        ("log: &a {level: *a}", "1:17: *a stands inside what it refers to"),
        ("log: {level: [info]}", "1:14: log.level must be one of debug, error, info, warning, not a list"),
        (
            "log: {level: }",
            "1:14: log.level has no value; give one of debug, error, info, warning, or leave the key out",
        ),
        ("upstreams: {a: b}", "1:12: upstreams must be a list, not a mapping"),
        ("upstreams: [3]", "1:13: upstreams[0] must be a section with keys such as service, listen, name, not '3'"),
        ("service: {port: 1}\nregistry: {consul: }", "1:10: 'name' is missing in service: The service's name"),
        (
            'http2: {max_connections: "5"}',
            '1:26: http2.max_connections must be a whole number of at least 1, not the text "5"',
        ),
        (
            "http2: {max_connections: 0x10}",
            "1:26: http2.max_connections must be a whole number of at least 1, not '0x10'",
        ),
        (
            "http2: {max_connections: 1:30}",
            "1:26: http2.max_connections must be a whole number of at least 1, not '1:30'",
        ),
        (
            "http2: {stream_window: 1KiB}",
            "1:24: http2.stream_window must be a value from 65535B to 2147483647B, not 1KiB",
        ),
        ("registry: {removal_guard: 1.5}", "1:27: registry.removal_guard must be a number from 0 to 1, not 1.5"),
        ("registry: {removal_guard: .nan}", "1:27: registry.removal_guard must be a number from 0 to 1, not '.nan'"),
        ("drain: {grace: -1s}", "1:16: drain.grace must be a duration such as"),
        ("allow_remote_listeners: yes", "1:25: allow_remote_listeners must be true or false, not 'yes'"),
        ("admin: {listen: '${NOPE}'}", "1:17: admin.listen: the environment variable NOPE is not set"),
        ("admin: {listen: 'unix:/a'}", "1:17: admin.listen must be host:port"),
        ("admin: {listen: '0.0.0.0:1'}", "1:17: admin.listen is not a loopback address"),
        (
            "admin: {listen: 'localhost:1', probe_listen: '0.0.0.0:1'}",
            "1:46: admin.probe_listen '0.0.0.0:1' is taken already",
        ),
        ("buffers: {soft_limit: 1GiB}", "1:23: buffers.soft_limit is above buffers.hard_limit"),
        ("service: {name: a, port: 1}", "1:10: service is given, but no registry"),
        ("service: {name: 'a b', port: 1}\nregistry: {consul: }", "1:17: service.name must match"),
        ("registry: {consul: {}, file: {path: /a}}", "1:30: registry.consul and registry.file are both given"),
        ("registry: {consul: {address: 'consul'}}", "1:30: registry.consul.address: 'consul' is not host:port"),
        (
            "registry: {consul: {address: 'ftp://a:1'}}",
            "1:30: registry.consul.address: 'ftp' is none of http, https and unix",
        ),
        (
            "registry: {consul: {address: 'http://a:1/v1'}}",
            "1:30: registry.consul.address: 'http://a:1/v1' must end after",
        ),
        ("registry: {consul: {cert_file: /a}}", "1:32: registry.consul.cert_file needs key_file beside it"),
        ("registry: {consul: {token: a, token_file: /a}}", "1:28: registry.consul has both token and token_file"),
        ("upstreams: [{service: a, listen: 'localhost:1'}]", "1:13: upstreams[0] has no endpoints, and no registry"),
        (upstream("balancer: a:B:c"), "2:79: upstreams[0].balancer 'a:B:c' is neither a balancer nor module:Class"),
        (
            upstream("balancing: {hash_on: trace-bin}"),
            "2:90: upstreams[0].balancing.hash_on 'trace-bin': a binary header cannot be hashed on",
        ),
        (
            upstream("service_config: /no/such/file.json"),
            "2:85: upstreams[0].service_config '/no/such/file.json' cannot be read: No such file or directory",
        ),
        (
            upstream("""service_config: '{"methodConfig": [{"timeout": 1}]}'"""),
            "2:85: upstreams[0].service_config: methodConfig[0].timeout must be a duration such as 0.1s, not 1",
        ),
        (
            upstream("retry: {codes: [UNAVAILBLE]}"),
            "2:85: upstreams[0].retry.codes[0] must be one of ABORTED,",
        ),
        (
            upstream("retry: {per_try_timeout: 1s}"),
            "2:94: upstreams[0].retry has per_try_timeout, which needs codes or idempotent: true",
        ),
        (
            upstream("methods: {/shop.Cart/Add: {retry: {backoff_base: 1s}}}"),
            "2:118: upstreams[0].methods./shop.Cart/Add.retry: backoff_base is above backoff_max",
        ),
        (
            upstream("methods: {/shop.Cart: {timeouts: {total: 1s}}}"),
            "2:91: upstreams[0].methods '/shop.Cart' is neither /pkg.Service/Method nor /pkg.Service/*",
        ),
        (
            upstream("methods: {/shop.Cart/*: {timeout: {total: 1s}}}"),
            "2:94: unknown key 'timeout' in upstreams[0].methods./shop.Cart/*, did you mean 'timeouts'?",
        ),
        (upstream("discovery: {passing_only: true}"), "2:80: upstreams[0] has endpoints, so discovery has no effect"),
        (
            upstream("connection: {backoff_base: 11s}"),
            "2:96: upstreams[0].connection: backoff_base is above",
        ),
        (
            upstream("ejection: {failures: [UNAVAILBLE]}"),
            "2:91: upstreams[0].ejection.failures[0] must be one of ABORTED, ALREADY_EXISTS,",
        ),
        (
            upstream("ejection: {classifier: judge}"),
            "2:92: upstreams[0].ejection.classifier 'judge' is not module:function",
        ),
        (upstream("ejection: {first_time: 2m}"), "2:92: upstreams[0].ejection: first_time is above max_time"),
        (
            upstream("connection: {keepalive_interval: 5s}"),
            "2:102: upstreams[0].connection.keepalive_interval must be 0 or at least 10s",
        ),
        (
            upstream("health_check: {grpc: {}, tcp: {}}"),
            "2:99: upstreams[0].health_check has grpc and tcp; keep one of them",
        ),
        (upstream("limits: {max_in_flight: 0}"), "2:93: upstreams[0].limits.max_in_flight must be a whole number"),
    ],
)
def test_a_mistake_is_one_sentence_at_its_place(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"sidecar.yaml:{problem}"), found


@pytest.mark.parametrize(
    "text", [upstream("balancer: my.module:Balancer, discovery: {}"), upstream("", "allow_remote_listeners: true\n")]
)
def test_what_only_looks_unusual_is_accepted(text: str) -> None:
    assert problems(text) == []


def discovering(keys: str, registry: str = "consul: {}") -> str:
    return f"registry: {{{registry}}}\nupstreams: [{{service: a, listen: '127.0.0.1:1', discovery: {{{keys}}}}}]"


def test_zone_awareness_needs_to_know_the_zone() -> None:
    (found,) = problems(upstream("balancing: {zone_aware: }"))
    assert "upstreams[0].balancing.zone_aware needs the sidecar's zone: set own, or service.meta.zone" in found
    assert problems(upstream("balancing: {zone_aware: {own: '${ZONE}'}}"), {"ZONE": "a"}) == []
    registered = "registry: {file: {path: /r}}\nservice: {name: s, port: 1, meta: {zone: a}}\n"
    assert problems(registered + upstream("balancing: {zone_aware: }")) == []
    assert problems("registry: {consul: {}}\n" + upstream("balancing: {zone_aware: }")) == []  # Consul may know it


def test_levels_load_and_one_that_could_never_be_used_is_refused() -> None:
    (entry,) = load(discovering("meta: {v: '2'}, failover: [{tags: [eu]}, {}], subset_size: 20")).upstreams
    assert entry.discovery.failover == (Selection(tags=("eu",)), Selection())
    (found,) = problems(discovering("tags: [x], failover: [{}, {datacenter: dc2}, {}]"))
    assert (
        "upstreams[0].discovery.failover[2] takes the same instances as upstreams[0].discovery.failover[0], so it"
        " would never be used" in found
    )


def test_a_level_too_can_ask_a_file_registry_for_nothing_of_consuls() -> None:
    (found,) = problems(discovering("failover: [{datacenter: dc2}]", "file: {path: /tmp/x}"))
    assert "upstreams[0].discovery.failover[0].datacenter needs Consul; a file registry has no such thing" in found


def test_every_section_of_a_method_is_also_one_of_its_upstream() -> None:
    own = {field.name: field.shape.core for field in fields_of(UpstreamEntry)}
    assert {field.name: own.get(field.name) for field in fields_of(MethodSettings)} == {
        field.name: field.shape.core for field in fields_of(MethodSettings)
    }


def test_a_service_config_is_read_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "service_config.json"
    path.write_text('{"methodConfig": [{"name": [{}], "timeout": "1s"}]}')
    (entry,) = load(upstream(f"service_config: {path}")).upstreams
    (inline,) = load(upstream(f"service_config: '{path.read_text()}'")).upstreams
    assert entry.service_config == inline.service_config == path.read_text()


def test_methods_load_by_their_names() -> None:
    (entry,) = load(upstream("methods: {/shop.Cart/Add: {timeouts: {total: 1s}}, /shop.Cart/*: }")).upstreams
    assert entry.methods == {
        "/shop.Cart/Add": MethodSettings(timeouts=TimeoutSettings(total=1.0)),
        "/shop.Cart/*": MethodSettings(),
    }


def test_a_repeated_endpoint_is_refused() -> None:
    (found,) = problems("upstreams: [{service: a, listen: 'unix:/a', endpoints: ['a:1', {address: 'a:1'}]}]")
    assert "upstreams[0].endpoints[1].address 'a:1' is endpoints[0] already" in found


def test_an_unreadable_section_hides_no_other_mistake_and_makes_none() -> None:
    found = problems("registry: [consul]\nupstreams: [{service: a, listen: 'localhost:1'}]\nlog: {level: x}")
    assert [each.split(": ")[0] for each in found] == ["sidecar.yaml:1:11", "sidecar.yaml:3:14"]


@pytest.mark.parametrize("key", [field.name for field in fields_of(Config) if field.name != "upstreams"])
def test_one_unreadable_section_is_one_problem(key: str) -> None:
    text = (
        "service: {name: a, port: 1, check: {grpc: , by: agent}}\nregistry: {consul: }\n"
        "upstreams: [{service: a, listen: '127.0.0.1:1', discovery: {filter: x}}]\n"
    )
    lines = [line for line in text.splitlines() if not line.startswith(key)]
    assert len(problems("\n".join([*lines, f"{key}: [wrong]"]))) == 1


def test_remote_listeners_can_be_allowed() -> None:
    text = "upstreams: [{service: a, listen: '0.0.0.0:1', endpoints: ['a:1']}]"
    assert len(problems(text)) == 1
    assert problems(text + "\nallow_remote_listeners: true") == []


# === hostile files ===


def test_a_file_that_is_not_utf_8_is_refused_at_the_octet() -> None:
    assert problems(b"log:\n  level: \xff") == ["sidecar.yaml:2:10: the file is not UTF-8 text: octet 0xff here"]


def test_a_control_character_is_refused_at_its_place() -> None:
    assert problems("log:\n  level: \x00") == ["sidecar.yaml:2:10: the control character '\\x00' is not allowed"]


def test_a_file_above_the_cap_is_refused() -> None:
    assert problems(b"#" * (2**20 + 1)) == ["sidecar.yaml: the file is larger than 1 MiB; is it the right one?"]


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = problems("\n".join(lines))
    assert "more than 100000 values by here (with aliases written out)" in found


def test_deep_nesting_is_refused() -> None:
    assert problems("[" * 500 + "]" * 500) == ["sidecar.yaml:1:51: nested deeper than 50 levels"]
    (found,) = problems("[" * 100_000)  # the scanner may look ahead, and find it too deep itself
    assert "nest" in found


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="cannot be read: No such file or directory"):
        load_config(tmp_path / "none.yaml", {})
    with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})
    with pytest.raises(ConfigErrors, match="cannot be read"):
        load_config("a\0b", {})


def test_a_machine_made_file_gets_a_hundred_sentences_and_a_count() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load("upstreams: [" + "1, " * 150 + "1]")
    assert str(caught.value).splitlines()[-1] == "... and 51 more problems"


# === anything at all ===

KEYS = [field.name for section in sections_of(Config) for field in fields_of(section)]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["127.0.0.1:1", "2s", "4MiB", "${A}", "${B:-1}", "round_robin", "unix:/a", "off"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


def loads_or_explains(data: bytes) -> None:
    try:
        config = build_config("fuzz.yaml", data, {"A": "a"})
    except ConfigErrors as errors:
        assert errors.problems
        assert all(problem.sentence for problem in errors.problems)
    else:
        assert msgspec.convert(msgspec.to_builtins(config), Config) == config


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([field.name for field in fields_of(Config)]), TREES, max_size=6))
def test_any_tree_of_known_keys_loads_or_is_explained(tree: dict[str, object]) -> None:
    loads_or_explains(yaml.safe_dump(tree).encode())


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abc:{}[]-,&*!|>'\"#%@`?~ \n\t$<0\u00e9\u2028", max_size=80))
def test_any_text_loads_or_is_explained(text: str) -> None:
    loads_or_explains(text.encode())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_octets_load_or_are_explained(data: bytes) -> None:
    loads_or_explains(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_contract_loads_or_is_explained(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(CONTRACT)))
    end = data.draw(st.integers(start, min(len(CONTRACT), start + 20)))
    patch = data.draw(st.text(alphabet="ab:{}[]-,&*'\" \n", max_size=5))
    loads_or_explains((CONTRACT[:start] + patch + CONTRACT[end:]).encode())
