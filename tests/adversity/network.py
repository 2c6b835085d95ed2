"""A machine of its own for a server, as far as packets go: a network namespace, whose cable can be cut.

The cut is a firewall rule that drops what comes in: no FIN, no RST, no ICMP, as when a machine is gone. It needs root
and Debian's iproute2 and iptables, which `scripts/install-tools` installs. It ends with `close`, which takes everything
with it that runs in there and was started through `command`.
"""

from __future__ import annotations

import os
import subprocess
from typing import Final

from tests.processes import PATIENCE

# Link-local, and one of 2^14 pairs of addresses by our process id, so that two runs on one machine do not meet.
_PAIR: Final = os.getpid() % 16_384 * 4


class Network:
    """One namespace, and a pair of virtual cards that joins it to this machine."""

    def __init__(self) -> None:
        self.name = f"sidecar{os.getpid()}"
        self._card = f"sc{os.getpid()}"
        here, self.address = (f"169.254.{(_PAIR + end) // 256}.{(_PAIR + end) % 256}" for end in (1, 2))
        far = f"{self._card}f"
        try:
            run("ip", "netns", "add", self.name)
            run("ip", "link", "add", self._card, "type", "veth", "peer", "name", far, "netns", self.name)
            run("ip", "address", "add", f"{here}/30", "dev", self._card)
            run("ip", "link", "set", self._card, "up")
            run("ip", "-n", self.name, "address", "add", f"{self.address}/30", "dev", far)
            run("ip", "-n", self.name, "link", "set", far, "up")
            run("ip", "-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def command(self, *arguments: str) -> list[str]:
        """What runs `arguments` in there."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def cut(self) -> None:
        """From now on no packet arrives there."""
        run(*self.command("iptables", "--wait", "--insert", "INPUT", "--jump", "DROP"))

    def mend(self) -> None:
        """They arrive again."""
        run(*self.command("iptables", "--wait", "--delete", "INPUT", "--jump", "DROP"))

    def close(self) -> None:
        """The cards go with the namespace, once nothing runs in it."""
        for arguments in (("ip", "link", "delete", self._card), ("ip", "netns", "delete", self.name)):
            subprocess.run(arguments, capture_output=True, timeout=PATIENCE, check=False)


def run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr.strip()}"
