"""Cells on the nodes of a Ray cluster that is running: one detached actor a slot, which starts them as processes.

Ray says what nodes there are and carries a word to each; the results folder, which all of them see, carries the rest.
Retries, time limits and who has which cell are ours: Ray restarts nothing (docs/clusters.md).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ddbench.benchmark.core.environment import passed_variables
from ddbench.benchmark.core.errors import RunError, UsageError
from ddbench.benchmark.core.store import Launch
from ddbench.benchmark.engines import ray_pilot
from ddbench.benchmark.engines.base import Engine, Handle, Needs, Slot

PLACE = "ddbench-"
"""How the namespaces begin in which the pilots of one results folder, and of one kind, have their names."""
HEAR_SECONDS = 4.0
"""Seconds between two words to a pilot."""
NODES_SECONDS = 5.0
"""Seconds between two looks at which nodes there are."""
FIRST_SECONDS = 10.0
"""Seconds for the other nodes to answer once one has."""
OPEN_SECONDS = 600.0
"""Seconds for the first node to answer: the cluster may be full."""
INSTALL = "--engine ray needs Ray: pip install 'ddbench[ray]', here and on every node"
NOT_THERE = "--engine ray: no Ray cluster at {where}"
START = (
    "Start one from this environment, `ray start --head` here and `ray start --address=HOST:6379` on the others, and "
    "name it with --address or $RAY_ADDRESS"
)
CONNECT_SECONDS = 10.0
LOST = -int(signal.SIGKILL)


class _RayHandle(Handle):
    def __init__(self, number: str, pilot: _Pilot, arguments: tuple[str, str]) -> None:
        self.number, self.pilot, self.arguments = number, pilot, arguments
        self.status: int | None = None
        self._lost: str | None = None
        self.ask()

    def ask(self) -> None:
        """Start it, or wait for it again."""
        self.answer = self.pilot.actor.run.remote(self.number, *self.arguments)

    def lose(self, why: str) -> None:
        self.status, self._lost = LOST, why

    def exit_status(self) -> int | None:
        return self.status

    @property
    def lost(self) -> str | None:
        return self._lost

    def terminate(self) -> None:
        self.pilot.actor.end.remote(self.number, int(signal.SIGTERM))

    def kill(self) -> None:
        self.pilot.actor.end.remote(self.number, int(signal.SIGKILL))


@dataclass(eq=False)
class _Pilot:
    """An actor of ours, on one node."""

    actor: Any
    node_id: str
    slot: Slot
    """What it offers, once it has answered."""
    seen: Any = None
    """Reference to what it finds on its node, until that is known."""
    heard: Any = None
    """Reference to how many cells it has, until that is known."""
    heard_at: float = 0.0
    others: int = 0
    """Cells that an earlier run left there."""
    adopted: bool = False
    ready: bool = False


@dataclass(frozen=True)
class _Node:
    id: str
    name: str
    places: int
    """Slots that fit on it."""
    cores: int
    """Of each."""


class RayEngine(Engine):
    """Runs cells on the nodes of a Ray cluster that is running (`ray start`), found by --address or $RAY_ADDRESS. Every
    node must see the results folder and have this ddbench, torch and Python; one that does not is named and not used.
    Nodes may come and go. Ctrl-C leaves the cells running, and the same command finds them again; twice stops them."""

    here = False
    detaches = True
    within = "ddbench.benchmark.engines.local:LocalEngine"
    """The engine that runs cells on a node."""

    def __init__(self) -> None:
        self._run = uuid4().hex[:12]
        self._pilots: list[_Pilot] = []
        self._handles: list[_RayHandle] = []
        self._numbers = itertools.count()
        self._refused: dict[str, str] = {}
        """Node -> why no cell runs there."""
        self._looked_at = 0.0
        self._detached = False

    def join(self, address: str | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError(INSTALL) from error
        if ray.is_initialized():
            return
        where = address or os.environ.get("RAY_ADDRESS") or "auto"
        _answers(where)
        try:
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UsageError(f"{NOT_THERE.format(where=where)}: {said}. {START}") from error

    def device(self, asked: str) -> str:
        import ray

        gpus = ray.cluster_resources().get("GPU", 0)
        if asked.startswith("cuda:"):
            raise UsageError(f"--device {asked}: Ray chooses among a node's GPUs; use --device cuda")
        if asked == "cuda" and not gpus:
            raise UsageError("--device cuda: no node of the Ray cluster has offered a GPU (`ray status`)")
        return asked if asked != "auto" else "cuda" if gpus else "cpu"

    def open(self, *, jobs: int, device: str, needs: Needs | None = None) -> list[Slot]:
        if needs is None:
            raise ValueError("a Ray engine needs to know the results folder")
        self._jobs, self._device, self._threads = jobs, device, needs.threads
        of = f"{device} {needs.threads} {needs.out.resolve()}"
        self._namespace = PLACE + hashlib.sha256(of.encode()).hexdigest()[:16]
        self._out, self._token = needs.out.resolve(), uuid4().hex
        self._probe = self._out / f".ray-probe-{self._run}"
        self._probe.write_text(self._token)
        try:
            self._adopt()
            self._wait_for_first()
        except BaseException:
            self.close()
            raise
        self.notes = tuple(self._notes())
        return self.slots([])

    def slots(self, opened: list[Slot]) -> list[Slot]:
        self._look()
        return [pilot.slot for pilot in self._pilots if pilot.ready and not pilot.others]

    def start(self, cell: Path, launch: Launch, slot: Slot) -> Handle:
        pilot = next(pilot for pilot in self._pilots if pilot.slot.index == slot.index)
        number = f"{self._run}-{next(self._numbers)}"
        handle = _RayHandle(number, pilot, (str(cell.resolve()), launch.model_dump_json()))
        self._handles.append(handle)
        return handle

    def detach(self) -> None:
        self._detached = True

    def stop_left(self) -> None:
        for pilot in self._pilots:
            if pilot.others:
                pilot.actor.leave.remote(stop=True)

    def close(self) -> None:
        import ray

        self._probe.unlink(missing_ok=True)
        for pilot in self._pilots:
            if not pilot.ready:
                ray.kill(pilot.actor)  # it waits for room, or was refused
            elif not self._detached:
                pilot.actor.leave.remote(stop=False)
        self._pilots = []

    # Nodes and pilots

    def _adopt(self) -> None:
        """Take over the pilots that a run has left which is gone."""
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError
        from ray.util import list_named_actors

        for named in list_named_actors(all_namespaces=True):
            if named["namespace"] != self._namespace:
                continue
            with suppress(ValueError, RayActorError, GetTimeoutError):  # gone meanwhile, or about to
                actor = ray.get_actor(named["name"], namespace=self._namespace)
                cells = ray.get(actor.hear.remote(self._run), timeout=HEAR_SECONDS)
                if cells is None:
                    continue
                seen = ray.get(actor.look.remote(str(self._probe), self._token), timeout=HEAR_SECONDS)
                device = "cpu" if self._device == "cpu" else "cuda:0"
                slot = Slot(next(self._numbers), device, seen.node, seen.cores)
                pilot = _Pilot(actor, named["name"].split("-")[1], slot, others=cells, adopted=True)
                pilot.ready = not self._why_not(seen)
                self._pilots.append(pilot)

    def _wait_for_first(self) -> None:
        began, first = time.monotonic(), None
        while True:
            self._look()
            now = time.monotonic()
            coming = [pilot for pilot in self._pilots if not pilot.ready]
            if any(pilot.ready for pilot in self._pilots):
                first = first or now
                if not coming or now - first > FIRST_SECONDS:
                    return
            elif not coming and self._refused:
                raise UsageError("--engine ray: no node can run cells.\n" + "\n".join(sorted(self._refused.values())))
            elif now - began > OPEN_SECONDS:
                raise RunError(
                    f"--engine ray: no slot came free within {OPEN_SECONDS / 60:.0f} minutes; `ray status` shows what "
                    "the nodes are taken by"
                )
            time.sleep(0.1)

    def _notes(self) -> Iterator[str]:
        ready = [pilot for pilot in self._pilots if pilot.ready]
        nodes = sorted({pilot.slot.node or "" for pilot in ready})
        slots = f"{len(ready)} slot{'s' if len(ready) != 1 else ''}"
        yield f"Ray: {slots} on {', '.join(nodes[:8])}{f' and {len(nodes) - 8} more' if len(nodes) > 8 else ''}"
        if left := sum(pilot.others for pilot in ready):
            yield f"{left} cells that an earlier run left are still running there; this run waits for them"
        if waiting := len(self._pilots) - len(ready):
            yield f"{waiting} more slots are asked for and wait until their nodes have room"
        yield from sorted(self._refused.values())
        if names := passed_variables():
            yield f"passed on to the nodes from this shell: {', '.join(names)}"

    def _look(self) -> None:
        """Whatever has come: ends of cells, answers of pilots, nodes."""
        self._collect_ends()
        self._collect_answers()
        now = time.monotonic()
        for pilot in self._pilots:
            if pilot.ready and pilot.heard is None and now - pilot.heard_at > HEAR_SECONDS:
                pilot.heard, pilot.heard_at = pilot.actor.hear.remote(self._run), now
        if now - self._looked_at > NODES_SECONDS:
            self._looked_at = now
            self._grow()

    def _collect_ends(self) -> None:
        from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

        by_answer = {handle.answer: handle for handle in self._handles}
        for answer in _ready(by_answer):
            handle = by_answer[answer]
            try:
                handle.status = _value(answer)
            except ActorUnavailableError:  # whether it is gone is not known yet
                handle.ask()
                continue
            except RayActorError:
                handle.lose(f"its pilot on {handle.pilot.slot.node} is gone, or its node")
                self._forget(handle.pilot)
            except RayTaskError as error:
                handle.lose(f"{handle.pilot.slot.node} could not start it: {str(error).strip().splitlines()[-1]}")
        self._handles = [handle for handle in self._handles if handle.status is None]

    def _collect_answers(self) -> None:
        from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

        of = {ref: pilot for pilot in self._pilots for ref in (pilot.seen, pilot.heard) if ref is not None}
        for ref in _ready(of):
            pilot = of[ref]
            try:
                found = _value(ref)
            except ActorUnavailableError:
                found = None
            except (RayActorError, RayTaskError) as error:
                if ref is pilot.seen:
                    self._refused[pilot.node_id] = f"node {pilot.slot.node}: {_why_no_pilot(error)}"
                self._forget(pilot)
                continue
            if ref is pilot.heard:
                self._heard(pilot, found)
            else:
                self._judge(pilot, found)

    def _heard(self, pilot: _Pilot, cells: int | None) -> None:
        pilot.heard = None
        if not pilot.adopted:
            return
        mine = sum(handle.pilot is pilot for handle in self._handles)
        pilot.others = max(0, (cells or 0) - mine)

    def _judge(self, pilot: _Pilot, seen: ray_pilot.Seen | None) -> None:
        pilot.seen = None
        if seen is None:
            pilot.seen = pilot.actor.look.remote(str(self._probe), self._token)
        elif why := self._why_not(seen):
            import ray

            self._refused[pilot.node_id] = why
            ray.kill(pilot.actor)
            self._forget(pilot)
        else:
            pilot.slot = Slot(pilot.slot.index, pilot.slot.device, seen.node, seen.cores)
            pilot.ready = True

    def _why_not(self, seen: ray_pilot.Seen) -> str | None:
        if not seen.sees:
            return (
                f"node {seen.node} does not see {self._out}: cells need a folder that all nodes share, under one name"
            )
        ours = ray_pilot.versions()
        other = [f"{name} {seen.versions.get(name)} ({ours[name]} here)" for name in ours
                 if seen.versions.get(name) != ours[name]]  # fmt: skip
        if other:
            return f"node {seen.node} has {', '.join(other)}: start its Ray from the environment that is used here"
        return None

    def _forget(self, pilot: _Pilot) -> None:
        if pilot in self._pilots:
            self._pilots.remove(pilot)

    def _grow(self) -> None:
        """Ask for as many pilots as the nodes hold, one after the other on each, until there are enough."""
        nodes = self._nodes()
        there = {node.id: sum(pilot.node_id == node.id for pilot in self._pilots) for node in nodes}
        for round_ in range(max((node.places for node in nodes), default=0)):
            for node in nodes:
                if len(self._pilots) < self._jobs and there[node.id] <= round_ < node.places:
                    self._pilots.append(self._pilot(node))
                    there[node.id] += 1

    def _nodes(self) -> Sequence[_Node]:
        import ray

        found = []
        for node in ray.nodes():
            has, id, name = node["Resources"], node["NodeID"], node["NodeManagerHostname"]
            if not node["Alive"] or id in self._refused:
                continue
            cpus, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
            if self._device == "cpu":
                cores = min(self._threads, cpus)
                places = cpus // cores if cores else 0
            else:
                cores, places = (max(1, cpus // gpus), gpus) if gpus else (0, 0)
            if places:
                found.append(_Node(id, name, places, cores))
        return sorted(found, key=lambda node: node.id)

    def _pilot(self, node: _Node) -> _Pilot:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        index = next(self._numbers)
        device = "cpu" if self._device == "cpu" else "cuda"
        options: dict[str, Any] = {
            "name": f"pilot-{node.id}-{self._run}-{index}",
            "namespace": self._namespace,
            "lifetime": "detached",
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 64,
            "num_cpus": node.cores,
            "num_gpus": 0 if device == "cpu" else 1,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
        }
        variables = {name: os.environ[name] for name in passed_variables()}
        actor = ray.remote(ray_pilot.Pilot).options(**options).remote(
            self._run, self.within, device, node.cores, variables
        )  # fmt: skip
        slot = Slot(index, "cpu" if device == "cpu" else "cuda:0", node.name, node.cores)
        return _Pilot(actor, node.id, slot, seen=actor.look.remote(str(self._probe), self._token))


def _answers(where: str) -> None:
    """Raises UsageError where nobody listens at an address: Ray itself waits for minutes."""
    if where in ("auto", "local"):
        return
    if "://" in where:
        raise UsageError(f"--engine ray: {where}: start the run on a node of the cluster, and give HOST:PORT")
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"{NOT_THERE.format(where=where)}: {error}. {START}") from error


def _ready(refs: Any) -> list[Any]:
    """Those that have been answered; never waits."""
    import ray

    waiting = list(refs)
    return list(ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]) if waiting else []


def _value(ref: Any) -> Any:
    import ray

    return ray.get(ref)


def _why_no_pilot(error: Exception) -> str:
    text = str(error)
    if "No module named" in text:
        missing = text.partition("No module named")[2].strip().splitlines()[0]
        return f"no module {missing} there: start its Ray from the environment that is used here"
    return f"no pilot can run there: {text.strip().splitlines()[-1]}"
