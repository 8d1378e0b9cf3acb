"""Placements as people read them: which host, and why; of each other host, why not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """One host. ``why``: the reasons against it; empty where it fits."""

    host: str
    fits: bool
    chosen: bool
    score: float | None
    scores: Mapping[str, float]
    why: Sequence[str]


@dataclass(frozen=True)
class Placed:
    """Where something is placed, or would be. ``spread``: how many on which host, of several."""

    summary: str
    hosts: int  # that were looked at
    fitting: int
    complete: bool
    verdicts: Sequence[Verdict]
    spread: Sequence[tuple[str, int]] = ()


def placed(explanation: Mapping[str, Any] | None, hosts: Sequence[str]) -> Placed | None:
    """An explanation of the API, and the hosts of all that were placed together."""
    if explanation is None or "verdicts" not in explanation:
        return None  # facts of another sort
    chosen = hosts[0] if hosts else None
    counted = Counter(hosts)
    spread = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    return Placed(
        summary=explanation["summary"],
        hosts=explanation["hosts"],
        fitting=explanation["fitting"],
        complete=explanation["complete"],
        verdicts=[_verdict(one, chosen) for one in explanation["verdicts"]],
        spread=spread if len(hosts) > 1 else (),
    )


def _verdict(found: Mapping[str, Any], chosen: str | None) -> Verdict:
    name = found["host"]["name"]
    return Verdict(
        host=name,
        fits=found["fits"],
        chosen=name == chosen,
        score=found.get("score"),
        scores=found.get("scores", {}),
        why=[reason["message"] for reason in found.get("reasons", ())],
    )
