"""What happens in the demo, event by event, and the sentence that says what came of each. Every number is measured.

The events only start and end processes; what the sidecars make of it is read from the client's sidecar and from the
caller's own books.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter

from sidecar.demo.ledger import Kill, Ledger, Mark
from sidecar.demo.load import Load
from sidecar.demo.process import StageError
from sidecar.demo.screen import Screen
from sidecar.demo.stage import Instance, Stage
from sidecar.demo.table import Board

INSTANCES = 3
REDRAW = 0.25  # seconds between two looks at the client's sidecar
LEAVE_PATIENCE = 15.0  # seconds for a dead instance to leave the registry; after an outage it may stay for a grace


class Script:
    """The demo on its stage."""

    def __init__(self, stage: Stage, load: Load, ledger: Ledger, screen: Screen) -> None:
        self.stage = stage
        self.load = load
        self.ledger = ledger
        self.screen = screen
        self.board = Board()

    # === the whole ===

    async def play(self, seconds: float, once: bool) -> None:
        """Begin, then all events with `seconds` of nothing but load around each; again and again unless `once`."""
        painter = asyncio.get_running_loop().create_task(self._paint())
        try:
            await self._begin()
            await self._steady(seconds)
            while True:
                for event in (self._kill, self._add, self._roll, self._restart_registry):
                    await event()
                    await self._show()
                    await self._steady(seconds)
                if once:
                    return
        finally:
            painter.cancel()
            self.screen.leave(self.board.lines(self.screen.color, self.screen.width))

    async def _paint(self) -> None:
        """Keep the table true."""
        while True:
            if self.stage.client.running and self.load.answered:
                try:
                    self.board.update(await self.stage.admin.endpoints())
                except StageError as error:
                    self.screen.draw([str(error)])
                else:
                    self.screen.draw(self.board.lines(self.screen.color, self.screen.width))
            await asyncio.sleep(REDRAW)

    async def _show(self) -> None:
        """The table where nothing is redrawn."""
        self.board.update(await self.stage.admin.endpoints())
        self.screen.show_table(self.board.lines(False, self.screen.width))

    async def _steady(self, seconds: float) -> None:
        """Nothing happens but load."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.stage.check()
            await asyncio.sleep(min(left, REDRAW))

    # === the events ===

    async def _begin(self) -> None:
        stage, say = self.stage, self.screen.say
        say(f"The registry is {stage.registry.title}.")
        await stage.open(INSTANCES)
        names = ", ".join(stage.instances)
        say(f"{names} run, each registered by a sidecar of its own; the client's sidecar has found and connected them.")
        self.load.start()

        async def answered() -> bool:
            return self.ledger.answered > 0

        await stage.until(answered, "an RPC is answered", pause=0.001)
        say(
            f"The first RPC is answered. The client app now sends {self.load.rate:g} RPCs a second to localhost.",
            strong=True,
        )
        say(
            f"It dials {stage.app_address}; ask the client's sidecar with `curl {stage.admin.url}/clusters`."
            f" Configurations and logs are in {stage.directory}"
        )

    async def _kill(self) -> None:
        """SIGKILL for a greeter, in the midst of its work."""
        stage, ledger = self.stage, self.ledger
        sent_before = ledger.sent
        endpoints = await stage.admin.endpoints()
        victim = max(stage.instances.values(), key=lambda instance: endpoints[instance.name].in_flight)
        before = Counter(self.load.answered)
        kill = Kill(victim.name, victim.address, time.monotonic(), endpoints[victim.name].in_flight)
        ledger.kills.append(kill)
        victim.greeter.signal(signal.SIGKILL)
        out_at = await stage.until_out(victim.name)
        kill.out_at, kill.sent_during = out_at, ledger.sent - sent_before
        self.screen.say(f"{victim.name} was killed (SIGKILL).", strong=True)

        left = await self._leaves(victim)
        lost, took_over = ledger.lost_to(kill), Counter(self.load.answered) - before
        del took_over[victim.name]
        others = " and ".join(f"{name} {took_over[name]}" for name in sorted(took_over))
        self.screen.say(
            f"{rpcs(lost)} in flight on it failed; it was out of picks after {(out_at - kill.at) * 1e3:.0f} ms."
            f" The others took over; since then {others} answered."
        )
        if left:
            after = f"{left - kill.at:.1f} s after the kill"
            self.screen.say(f"Its own sidecar found it dead and took it out of the registry {after}.")
        else:
            self.screen.say("The client's sidecar doubts its absence so soon after an outage, but does not pick it.")
        await stage.remove(victim)

    async def _leaves(self, instance: Instance) -> float:
        """The instant at which the client's sidecar no longer has it for a member; 0 if that takes too long."""
        give_up_at = time.monotonic() + LEAVE_PATIENCE
        while instance.name in await self.stage.admin.endpoints():
            self.stage.check()
            if time.monotonic() > give_up_at:
                return 0.0
            await asyncio.sleep(0.02)
        return time.monotonic()

    async def _add(self) -> None:
        """One more greeter with its sidecar."""
        stage, mark, started_at = self.stage, self.ledger.mark(), time.monotonic()
        instance = stage.add()
        self.screen.say(f"{instance.name} is started, with its sidecar.", strong=True)
        pickable_at = await stage.until_pickable(instance.name)

        async def answered() -> bool:
            return self.load.answered[instance.name] > 0

        await stage.until(answered, f"{instance.name} answers an RPC", pause=0.001)
        self.screen.say(
            f"It was up, registered, found and connected {pickable_at - started_at:.1f} s after its start, and answered"
            f" its first RPC {(time.monotonic() - pickable_at) * 1e3:.0f} ms later; {self._meanwhile(mark)}."
        )

    async def _roll(self) -> None:
        """A restart in order, as in a rolling update: drain, end, start."""
        stage, mark = self.stage, self.ledger.mark()
        instance = next(iter(stage.instances.values()))
        self.screen.say(f"{instance.name} is restarted in order: `sidecar drain`, end, start.", strong=True)
        began_at = time.monotonic()
        out_at, drained_at = await asyncio.gather(stage.until_out(instance.name), self._drain_and_end(instance))
        instance.start()
        back_at = await stage.until_pickable(instance.name)
        self.screen.say(
            f"It was out of picks {(out_at - began_at) * 1e3:.0f} ms after `sidecar drain` was started,"
            f" {'before that ended' if out_at < drained_at else 'with its own goodbye'}, and in again after"
            f" {back_at - began_at:.1f} s; {self._meanwhile(mark)}."
        )

    async def _drain_and_end(self, instance: Instance) -> float:
        """As an operator's tool would do it; the instant at which `sidecar drain` ended.

        Soon after an outage of the registry callers doubt that an instance has left: then its end tells them.
        """
        instance.drain.start(lasting=False)
        if await instance.drain.wait() != 0:
            raise StageError(f"{instance.drain.name} failed. {instance.drain.tail()}")
        drained_at = time.monotonic()
        await instance.end()
        return drained_at

    async def _restart_registry(self) -> None:
        """Everything that the registry knew is gone."""
        stage, mark = self.stage, self.ledger.mark()
        self.screen.say("The registry is restarted, and forgets everything.", strong=True)
        outage = await stage.registry.restart()
        wanted = set(stage.instances)

        async def registered() -> bool:
            return wanted <= await stage.registry.passing()

        await stage.until(registered, "every instance is registered again")
        again = time.monotonic() - outage.back_at
        self.screen.say(
            f"{outage.sentence}. The client's sidecar kept its list; the sidecars had registered all"
            f" {len(wanted)} instances again {again:.1f} s later; {self._meanwhile(mark)}."
        )

    def _meanwhile(self, mark: Mark) -> str:
        """What became of the RPCs since `mark`."""
        sent, failed = self.ledger.since(mark)
        return f"{sent} RPCs were sent meanwhile, {failed or 'none'} failed"


def rpcs(count: int) -> str:
    """A number of them, in words."""
    return f"{count} RPC" if count == 1 else f"{count or 'no'} RPCs"


def closing(ledger: Ledger, counted: int | None) -> list[str]:
    """The last lines: every complaint, then the account of all RPCs."""
    verdict = ledger.judge(counted)
    failed = len(ledger.failures)
    parts = [f"{ledger.sent} RPCs were sent, {ledger.answered} answered, {failed or 'none'} failed"]
    parts += [f"{rpcs(lost)} in flight on {name} when it was killed" for name, lost in verdict.excused.items()]
    if counted is not None:
        parts.append(f"the client's sidecar counted {counted}")
    parts.append("every RPC is accounted for" if verdict.clean else "NOT every RPC is accounted for, see above")
    return [*verdict.complaints, "; ".join(parts) + "."]
