"""The command `sidecar`: arguments and environment in, exit code out. Nothing is decided here.

Kubernetes starts `drain` and `healthcheck` again and again beside a busy app, so nothing heavy is imported before a
command needs it. Every flag has a variable; the flag wins. Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sidecar.config.override import OVERRIDES
from sidecar.config.problem import ConfigErrors
from sidecar.config.quantity import build_duration, parse_duration

OK, FAILED, MISUSED = 0, 1, 2

DEFAULT_ADMIN = "127.0.0.1:19900"  # AdminSettings.listen; written again so that `drain` need not import msgspec
DRAIN_TIMEOUT = "30s"  # Kubernetes' default terminationGracePeriodSeconds
HEALTHCHECK_TIMEOUT = "2s"  # Kubernetes' probes 1 s, Docker's 30 s

Environment = Mapping[str, str]


class Command(NamedTuple):
    """One subcommand: what it does, its flags, and the function behind it."""

    help: str
    add_flags: Callable[[Flags], None]
    run: Callable[[argparse.Namespace, Environment], int]


class Flags:
    """The flags of one command, each with its environment variable as the default."""

    def __init__(self, parser: argparse.ArgumentParser, environment: Environment) -> None:
        self.parser = parser
        self.environment = environment

    def add(self, flag: str, variable: str, help: str, metavar: str = "VALUE", default: str | None = None) -> None:
        """A flag with a value; an empty variable counts as unset."""
        value = self.environment.get(variable) or default
        shown = f"{help} [{variable}{f', {default}' if default else ''}]"
        self.parser.add_argument(flag, metavar=metavar, default=value, help=shown)

    def add_switch(self, flag: str, variable: str, help: str) -> None:
        """A flag without a value; the variable counts as given when it is 1, true or yes."""
        given = self.environment.get(variable, "").lower() in ("1", "true", "yes")
        self.parser.add_argument(flag, action="store_true", default=given, help=f"{help} [{variable}]")


# === run, check, schema ===


def run_flags(flags: Flags) -> None:
    flags.add("--config", "SIDECAR_CONFIG", "the configuration file", "FILE")
    for override in OVERRIDES:  # their variables are read by the loader, which knows which source to blame
        flags.parser.add_argument(
            override.flag, dest=override.key, metavar="VALUE", help=f"{override.help} [{override.variable}]"
        )


def run_sidecar(args: argparse.Namespace, environment: Environment) -> int:
    """Run until told to end."""
    if not args.config:
        return misuse("sidecar run: give --config FILE, or set SIDECAR_CONFIG")
    gc.disable()  # a start makes no garbage worth looking for; it is enabled when everything is loaded
    from sidecar.app import run

    overrides = {each.key: value for each in OVERRIDES if (value := getattr(args, each.key))}
    try:
        return run(args.config, environment, overrides)
    finally:
        gc.enable()


def check_flags(flags: Flags) -> None:
    config = flags.environment.get("SIDECAR_CONFIG") or None
    flags.parser.add_argument(
        "file", metavar="FILE", nargs="?", default=config, help="the configuration file [SIDECAR_CONFIG]"
    )
    flags.add_switch("--json", "SIDECAR_CHECK_JSON", "print the problems, or the settings in force, as JSON")


def check_file(args: argparse.Namespace, environment: Environment) -> int:
    """Say everything that is wrong with the file, or what it amounts to."""
    if not args.file:
        return misuse("sidecar check: give FILE, or set SIDECAR_CONFIG")
    from sidecar.config.loader import load_config
    from sidecar.config.redaction import dump
    from sidecar.config.summary import summary

    try:
        config = load_config(args.file, environment)
    except ConfigErrors as errors:
        if not args.json:
            raise
        keys = ("source", "line", "column", "sentence")
        rows = [(each.source, *(each.place or (None, None)), each.sentence) for each in errors.problems]
        print(json.dumps({"valid": False, "problems": [dict(zip(keys, row, strict=True)) for row in rows]}, indent=2))
        return MISUSED
    if args.json:
        print(json.dumps({"valid": True, "config": dump(config)}, indent=2))
    else:
        print(f"{args.file} is valid", *summary(config), sep="\n")
    return OK


def print_schema(args: argparse.Namespace, environment: Environment) -> int:
    """The JSON Schema of the file."""
    from sidecar.config.schema import schema_text

    print(schema_text(), end="")
    return OK


# === drain, healthcheck ===


def drain_flags(flags: Flags) -> None:
    admin_flags(flags)
    flags.add(
        "--timeout", "SIDECAR_DRAIN_TIMEOUT", "how long to wait for the end of the drain", "DURATION", DRAIN_TIMEOUT
    )


def healthcheck_flags(flags: Flags) -> None:
    admin_flags(flags)
    flags.add_switch("--live", "SIDECAR_HEALTHCHECK_LIVE", "ask whether it is alive rather than ready")
    flags.add(
        "--timeout", "SIDECAR_HEALTHCHECK_TIMEOUT", "how long to wait for the answer", "DURATION", HEALTHCHECK_TIMEOUT
    )


def admin_flags(flags: Flags) -> None:
    flags.add(
        "--admin", "SIDECAR_ADMIN_LISTEN", "address of the admin API; else the file's, else " + DEFAULT_ADMIN, "ADDRESS"
    )
    flags.add("--config", "SIDECAR_CONFIG", "the file to take the address from", "FILE")


def drain(args: argparse.Namespace, environment: Environment) -> int:
    """Deregister and wait until callers have noticed, while the app's own calls go on."""
    return ask_admin("drain", "POST", "/drain", args, environment)


def healthcheck(args: argparse.Namespace, environment: Environment) -> int:
    """Whether the sidecar is ready, or with --live alive."""
    return ask_admin("healthcheck", "GET", "/live" if args.live else "/ready", args, environment)


def ask_admin(command: str, method: str, path: str, args: argparse.Namespace, environment: Environment) -> int:
    """One request to the admin API of the running sidecar; any 2xx is success."""
    from sidecar.config.address import parse_host_port

    try:
        timeout = parse_duration(args.timeout)
    except ValueError as error:
        return misuse(f"sidecar {command}: --timeout {error}")
    text = args.admin or address_in_file(command, args.config, environment)
    if not text:
        return fail(f"sidecar {command}: the admin API is off in {args.config}, so the sidecar cannot be asked")
    try:
        address = parse_host_port(text)
    except ValueError as error:
        return misuse(f"sidecar {command}: the address of the admin API: {error}")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return request(command, method, path, host, address.port, timeout)


def address_in_file(command: str, path: str | None, environment: Environment) -> str | None:
    """`admin.listen` of the file; the default if there is no file, or none that could be read."""
    if not path:
        return DEFAULT_ADMIN
    from sidecar.config.loader import load_config

    try:
        return load_config(path, environment).admin.listen
    except ConfigErrors as errors:
        print(f"{errors}\nsidecar {command}: so the admin API is sought at {DEFAULT_ADMIN}", file=sys.stderr)
        return DEFAULT_ADMIN


def request(command: str, method: str, path: str, host: str, port: int, timeout: float) -> int:
    """Send it, print the answer. `timeout` bounds each wait, in seconds; 0 waits for ever."""
    import http.client  # and not urllib, which would obey http_proxy

    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=timeout or None)
    try:
        connection.request(method, path, headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read(65_536).decode("utf-8", "replace").strip()
    except TimeoutError:
        return fail(
            f"sidecar {command}: {where} has not answered after {build_duration(timeout)}; the sidecar itself goes on"
        )
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__} {error}".strip()
        return fail(
            f"sidecar {command}: no answer at {where} ({reason}); is the sidecar running, and is that its admin.listen?"
        )
    finally:
        connection.close()
    if response.status // 100 != 2:
        return fail(f"sidecar {command}: {where}{path} answered {response.status}: {body or response.reason}")
    print(body or "ok")
    return OK


# === demo, version ===


def version_flags(flags: Flags) -> None:
    flags.add_switch("--json", "SIDECAR_VERSION_JSON", "print it as JSON")


def print_version(args: argparse.Namespace, environment: Environment) -> int:
    """What this is and what it would run on, found without importing any of it."""
    from sidecar.build import build_facts

    facts = build_facts()
    if args.json:
        print(json.dumps(facts, indent=2))
        return OK
    compiled = ", ".join(facts["extensions"]) if facts["compiled"] else "no"
    print(f"sidecar {facts['version']}", f"python {facts['python']}", f"codec {facts['codec']}", sep="\n")
    print(f"loop {facts['loop']}", f"compiled {compiled}", sep="\n")
    return OK


def no_flags(flags: Flags) -> None:
    """For commands without any."""


def run_demo(argv: Sequence[str]) -> int:
    """The demo reads its own arguments."""
    from sidecar.demo.main import main as demo

    return demo(argv)


COMMANDS = {
    "run": Command("run the sidecar", run_flags, run_sidecar),
    "check": Command("say everything that is wrong with a configuration file", check_flags, check_file),
    "schema": Command("print the JSON Schema of the configuration file", no_flags, print_schema),
    "drain": Command("deregister, and wait until callers have noticed (for preStop)", drain_flags, drain),
    "healthcheck": Command("exit 0 if the sidecar is ready", healthcheck_flags, healthcheck),
    "version": Command("print version, python, codec, loop and what is compiled", version_flags, print_version),
}


def main(argv: Sequence[str] | None = None, environment: Environment = os.environ) -> int:
    """The exit code of the command."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["demo"]:
            return run_demo(words[1:])
        args = build_parser(environment).parse_args(words)
        return COMMANDS[args.command].run(args, environment)
    except ConfigErrors as errors:
        print(errors, file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return fail("sidecar: interrupted")
    except BrokenPipeError:  # `sidecar schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def build_parser(environment: Environment) -> argparse.ArgumentParser:
    """The grammar of the command line. Every flag can also be given by the variable in brackets."""
    parser = argparse.ArgumentParser(
        prog="sidecar",
        description="A gRPC sidecar proxy. Every flag can also be given by the environment variable in brackets.",
        allow_abbrev=False,
        formatter_class=build_formatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name, help=command.help, description=command.help, allow_abbrev=False, formatter_class=build_formatter
        )
        command.add_flags(Flags(own, environment))
    commands.add_parser("demo", help="show the main job on this machine", add_help=False)
    return parser


def build_formatter(prog: str) -> argparse.HelpFormatter:
    """argparse's own, as wide as the terminal. It would import shutil and all its archivers to ask how wide that is."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):  # no terminal, or not even a file
        columns = 80
    return argparse.HelpFormatter(prog, width=columns - 2)


def misuse(sentence: str) -> int:
    """Say what was wrong with the command."""
    print(sentence, file=sys.stderr)
    return MISUSED


def fail(sentence: str) -> int:
    """Say what did not work."""
    print(sentence, file=sys.stderr)
    return FAILED
