"""Traces from a seed: the same numbers give the same trace, to the last bit.

What is imitated is what providers have published of their clouds: a few flavours are asked for in
most requests, most virtual machines live for minutes and most core-hours are in those that live for
months, requests follow days and weeks and come in bursts (Cortez et al., "Resource Central", SOSP
2017; Hadary et al., "Protean", OSDI 2020). The figures are round ones of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from bench.traces.model import Arrival, Drain, Machine, Resize, Trace

HOUR, DAY = 3600.0, 86400.0
SHORT, MIDDLE, LONG = 0.85, 0.13, 0.02  # shares of lives: under an hour, hours, over 30 days
LONGEST = 180 * DAY
VCPUS = (1, 2, 4, 8, 16, 32)
_VCPU_SHARES = (0.22, 0.30, 0.25, 0.14, 0.07, 0.02)
RATIOS = (1, 2, 4, 8)  # GiB for each vCPU
_RATIO_SHARES = (0.10, 0.30, 0.40, 0.20)
MODELS = ((64, 256), (96, 384), (64, 512), (48, 96))  # vCPUs and GiB of machines
_MODEL_SHARES = (0.45, 0.25, 0.15, 0.15)
_BURSTS, _BURST_MEAN = 0.15, 4.0  # share of requests that are for several, and how many
_GROUPED = 0.4  # share of the bursts whose members are to be apart
LARGEST_GROUP = 8
_RESIZED = 0.02  # share of what lives for over an hour
_DRAINS_A_DAY = 0.01  # for each machine
_DAILY, _WEEKEND = 0.4, 0.6


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a trace is made from. ``load``: mean share of the scarcer resource that is asked for."""

    seed: int = 1
    machines: int = 100
    days: float = 7.0
    load: float = 0.7
    alike: bool = False  # all machines are of the first model


def make(recipe: Recipe) -> Trace:
    """The trace of a recipe."""
    dice = np.random.default_rng(recipe.seed)
    machines = _machines(dice, recipe)
    seconds = recipe.days * DAY
    rate = _rate(machines, recipe.load)
    names = count(1)
    there = _arrivals(dice, names, _already_there(dice, rate))
    moments = _moments(dice, rate / _mean_burst(), seconds)
    lives = [lives_of(dice, 1)[0] for _ in moments]
    arrivals = [
        *there,
        *_arrivals(dice, names, list(zip(moments, lives, strict=True)), bursts=True),
    ]
    return Trace(
        machines,
        tuple(arrivals),
        seconds,
        tuple(_resizes(dice, arrivals, seconds)),
        tuple(_drains(dice, machines, seconds)),
    )


def lives_of(dice: np.random.Generator, number: int) -> npt.NDArray[np.float64]:
    """How long workloads live: minutes mostly, hours some, and few for months."""
    which = dice.choice(3, number, p=(SHORT, MIDDLE, LONG))
    short = np.clip(dice.lognormal(np.log(600), 1.0, number), 30, HOUR - 1)
    middle = np.clip(dice.lognormal(np.log(6 * HOUR), 1.0, number), HOUR, 30 * DAY)
    long = np.clip(30 * DAY * (1 + dice.pareto(2.5, number)), 30 * DAY, LONGEST)
    lives: npt.NDArray[np.float64] = np.choose(which, (short, middle, long))
    return lives


def sizes_of(dice: np.random.Generator, number: int) -> tuple[npt.NDArray[np.int64], ...]:
    """vCPUs and GiB of flavours."""
    vcpus = dice.choice(VCPUS, number, p=_VCPU_SHARES)
    return vcpus, vcpus * dice.choice(RATIOS, number, p=_RATIO_SHARES)


def strength(at: float) -> float:
    """How many arrive at a time, against the mean: by day more than by night, less at weekends.

    Second 0 is a Monday's midnight.
    """
    daily = 1 - _DAILY * np.cos(2 * np.pi * at / DAY)
    return float(daily * (_WEEKEND if int(at // DAY) % 7 >= 5 else 1.0))


def _machines(dice: np.random.Generator, recipe: Recipe) -> tuple[Machine, ...]:
    shares = (1.0, 0.0, 0.0, 0.0) if recipe.alike else _MODEL_SHARES
    models = dice.choice(len(MODELS), recipe.machines, p=shares)
    return tuple(
        Machine(f"m{n:05}", *map(float, MODELS[model]), zone=f"z{n % 3}", rack=f"r{n // 20}")
        for n, model in enumerate(models)
    )


def _rate(machines: tuple[Machine, ...], load: float) -> float:
    """Workloads a second that keep the scarcer resource at ``load`` (Little's law)."""
    dice = np.random.default_rng(0)
    lives, (vcpus, memory) = lives_of(dice, 200_000), sizes_of(dice, 200_000)
    mean_life = float(lives.mean())
    share_vcpus = float(vcpus.mean()) / sum(machine.vcpus for machine in machines)
    share_memory = float(memory.mean()) / sum(machine.memory for machine in machines)
    return load / (mean_life * max(share_vcpus, share_memory))


def _already_there(dice: np.random.Generator, rate: float) -> list[tuple[float, float]]:
    """(0, what is left of their lives) of those that came before second 0."""
    lives = lives_of(dice, 200_000)
    number = dice.poisson(rate * float(lives.mean()))
    lived = dice.choice(lives, number, p=lives / lives.sum())  # who lives long is met more often
    return [(0.0, float(life)) for life in lived * dice.random(number)]


def _moments(dice: np.random.Generator, rate: float, seconds: float) -> list[float]:
    """A Poisson process whose rate follows ``strength``, by thinning."""
    highest = rate * (1 + _DAILY)
    found, at = [], 0.0
    while (at := at + float(dice.exponential(1 / highest))) < seconds:
        if dice.random() * (1 + _DAILY) < strength(at):
            found.append(at)
    return found


def _arrivals(
    dice: np.random.Generator,
    names: count[int],
    lives: list[tuple[float, float]],
    *,
    bursts: bool = False,
) -> list[Arrival]:
    """:param lives: (when, for how long). With ``bursts``, some of them are for several alike."""
    found = []
    for (at, life), vcpus, memory in zip(lives, *sizes_of(dice, len(lives)), strict=True):
        several = 1
        if bursts and dice.random() < _BURSTS:
            several = 1 + int(dice.geometric(1 / _BURST_MEAN))
        apart = 1 < several <= LARGEST_GROUP and dice.random() < _GROUPED
        first = next(names)
        for number in (first, *(next(names) for _ in range(several - 1))):
            group = f"g{first}" if apart else None
            found.append(Arrival(f"w{number}", at, at + life, float(vcpus), float(memory), group))
    return found


def _mean_burst() -> float:
    """Workloads for each request."""
    return 1 + _BURSTS * _BURST_MEAN


def _resizes(dice: np.random.Generator, arrivals: list[Arrival], seconds: float) -> list[Resize]:
    """To the double or the half, at some time of their lives."""
    found = []
    for one in arrivals:
        if one.ends - one.at > HOUR and dice.random() < _RESIZED:
            at = one.at + float(dice.random()) * (min(one.ends, seconds) - one.at)
            factor = 2.0 if dice.random() < 0.6 and one.vcpus < VCPUS[-1] else 0.5
            vcpus = max(1.0, one.vcpus * factor)
            found.append(Resize(one.name, at, vcpus, one.memory * vcpus / one.vcpus))
    return sorted(found, key=lambda resize: resize.at)


def _drains(
    dice: np.random.Generator, machines: tuple[Machine, ...], seconds: float
) -> list[Drain]:
    """Machines are emptied for some hours each."""
    number = dice.poisson(_DRAINS_A_DAY * len(machines) * seconds / DAY)
    return [
        Drain(
            str(dice.choice([m.name for m in machines])), at, at + float(dice.uniform(1, 6)) * HOUR
        )
        for at in sorted(dice.random(number) * seconds)
    ]
