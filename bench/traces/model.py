"""What a trace is: machines, and what arrives, changes size and leaves when. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One host. Memory in GiB."""

    name: str
    vcpus: float
    memory: float
    zone: str
    rack: str


@dataclass(frozen=True)
class Arrival:
    """One workload. Memory in GiB; ``ends`` may be long after the trace."""

    name: str
    at: float
    ends: float
    vcpus: float
    memory: float
    group: str | None = None
    """Of workloads that require hosts of their own, apart from one another."""


@dataclass(frozen=True)
class Resize:
    """A workload asks for another size where it is, and gets it if its host has room."""

    name: str
    at: float
    vcpus: float
    memory: float


@dataclass(frozen=True)
class Drain:
    """A machine is emptied and takes nothing from ``at`` to ``ends``."""

    machine: str
    at: float
    ends: float


@dataclass(frozen=True)
class Trace:
    """Everything in the order of its time; it is looked at from 0 to ``seconds``."""

    machines: tuple[Machine, ...]
    arrivals: tuple[Arrival, ...]
    seconds: float
    resizes: tuple[Resize, ...] = ()
    drains: tuple[Drain, ...] = ()
