"""Law 2, a crash is a non-event: kills at random moments; ``--kills`` says how many."""

from __future__ import annotations

import random
import time

import pytest

from . import machine
from .conftest import Product
from .storm import Storm

_ROUNDS_BETWEEN_LOOKS = 25


@pytest.mark.timeout(0)
def test_random_kills_lose_and_leave_nothing(product: Product, pytestconfig: pytest.Config) -> None:
    kills, seed = pytestconfig.getoption("kills"), pytestconfig.getoption("seed")
    print(f"repeat it with --kills {kills} --seed {seed}")
    storm = Storm(product, random.Random(seed))
    storm.make_and_delete_one()
    before = machine.traces()
    for number in range(kills):
        storm.round()
        if number % _ROUNDS_BETWEEN_LOOKS == _ROUNDS_BETWEEN_LOOKS - 1:
            storm.settle()
            print(f"{number + 1} kills, and all is as it was asked for")
    storm.settle()
    storm.end()
    deadline = time.monotonic() + 60
    present = [workload["id"] for workload in product.json("list")]
    while left := left_over(before, present):
        if time.monotonic() > deadline:
            print(f"left over: {left}")
            pytest.fail(f"{sorted(left)}: {machine.guests()} {storm.done} {machine.logs()}")
        time.sleep(1)


def left_over(before: dict[str, set[str]], present: list[str]) -> dict[str, set[str]]:
    """What is on the host and was not, and belongs to none of the workloads that are ``present``.

    Those of ``make up`` were hit too, and run again; processes' command lines may differ.
    """
    marks = [workload_id[-12:] for workload_id in present]  # libvirt's names have this much of ids
    found = {}
    for kind, names in machine.traces().items():
        new = {name for name in names - before[kind] if not any(mark in name for mark in marks)}
        if new and kind != "processes":
            found[kind] = new
    return found
