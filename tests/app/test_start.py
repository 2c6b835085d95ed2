"""What a start imports, and when: heavy libraries come after the listeners listen, or not at all. No stopwatch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from sidecar.build import build_facts
from tests.processes import free_port

ROOT = Path(__file__).parents[2]
# Each of them takes longer to import than the data path takes to forward its first RPC.
HEAVY = ("aiohttp", "consul", "grpc", "h2", "prometheus_client", "requests")

# Starts and ends a whole sidecar. Prints each heavy library at the moment it is asked for, and whether the app could
# connect by then.
PROGRAM = """
import asyncio, socket, sys

path, address, heavy = sys.argv[1], sys.argv[2], sys.argv[3].split()

class Watcher:
    def find_spec(self, name, *_):
        if name in heavy:
            host, _, port = address.rpartition(":")
            with socket.socket() as probe:
                print(name, "early" if probe.connect_ex((host, int(port))) else "late")

sys.meta_path.insert(0, Watcher())
from sidecar.app.sidecar import Sidecar
from sidecar.config.reload import ConfigSource

async def main():
    source = ConfigSource(path, {})
    sidecar = Sidecar(source, source.load(), {})
    await sidecar.start()
    if sidecar.registry is not None:
        await sidecar.registry.client.load()
    sidecar.quit()
    await sidecar.stop()

asyncio.run(main())
"""


def imports_of(directory: Path, **config: Any) -> set[str]:
    """The heavy libraries that a start with this configuration asked for, each with its moment."""
    address = f"127.0.0.1:{free_port()}"
    path = directory / "sidecar.yaml"
    upstream = {"service": "orders", "listen": address, **config.pop("upstream", {})}
    path.write_text(yaml.safe_dump({"upstreams": [upstream], "drain": {"grace": "1ms"}, **config}))
    command = [sys.executable, "-c", PROGRAM, str(path), address, " ".join(HEAVY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    codec = {"h2 early"} if build_facts()["codec"] != "native" else set()
    return set(done.stdout.splitlines()) - codec


def test_static_endpoints_without_admin_import_nothing_heavy(tmp_path: Path) -> None:
    static = {"endpoints": ["127.0.0.1:1"]}
    assert imports_of(tmp_path, upstream=static, admin={"listen": None}) == set()


def test_admin_api_and_consul_are_imported_after_the_app_can_connect(tmp_path: Path) -> None:
    consul = {"consul": {"address": "127.0.0.1:1"}}
    found = imports_of(tmp_path, registry=consul, admin={"listen": "127.0.0.1:0"})
    assert found == {"aiohttp late", "consul late"}


def test_the_part_of_py_consul_that_is_left_out_can_still_be_had() -> None:
    program = (
        "from sidecar.control.consul_package import consul; import sys; assert 'requests' not in sys.modules; "
        "import consul.std; print(consul.std.Consul.__name__, consul.aio.Consul.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("Consul Consul\n", "")
