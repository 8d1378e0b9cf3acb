"""nftables' JSON, built from data (libnftables-json(5)): only what virtmgr's tables need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Expression = Json | str | int


def meta(key: str) -> Json:
    return {"meta": {"key": key}}


def payload(protocol: str, name: str) -> Json:
    return {"payload": {"protocol": protocol, "field": name}}


def raw_payload(base: str, offset: int, length: int) -> Json:
    """Bits ``offset`` to ``offset + length`` of the header ``base`` (ll, nh or th)."""
    return {"payload": {"base": base, "offset": offset, "len": length}}


def ct(key: str) -> Json:
    return {"ct": {"key": key}}


def concat(*parts: Expression) -> Json:
    return {"concat": list(parts)}


def one_of(*values: Any) -> Json:
    return {"set": list(values)}


def prefix(address: str, length: int) -> Json:
    return {"prefix": {"addr": address, "len": length}}


def match(left: Json, right: Any, operator: str = "==") -> Json:
    return {"match": {"op": operator, "left": left, "right": right}}


def jump(chain: str) -> Json:
    return {"jump": {"target": chain}}


def goto(chain: str) -> Json:
    return {"goto": {"target": chain}}


def verdict_map(key: Json, data: Any) -> Json:
    return {"vmap": {"key": key, "data": data}}


ACCEPT: Json = {"accept": None}
DROP: Json = {"drop": None}
RETURN: Json = {"return": None}
MASQUERADE: Json = {"masquerade": None}


@dataclass
class Table:
    """One table under construction. ``commands`` replaces the kernel's copy of it as a whole."""

    family: str
    name: str
    _objects: list[Json] = field(default_factory=list)
    _rules: list[Json] = field(default_factory=list)

    def chain(self, name: str, *rules: Sequence[Json]) -> None:
        """A chain that others jump to."""
        self._objects.append({"chain": {**self._place(), "name": name}})
        self._add_rules(name, rules)

    def base_chain(
        self, name: str, kind: str, hook: str, priority: int, *rules: Sequence[Json]
    ) -> None:
        """A chain that the kernel enters at ``hook``; what no rule decides is accepted."""
        hooked = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        self._objects.append({"chain": {**self._place(), "name": name, **hooked}})
        self._add_rules(name, rules)

    def set(self, name: str, types: Sequence[str], elements: Iterable[Any]) -> None:
        self._objects.append(
            {"set": {**self._place(), "name": name, "type": _type(types), **_elements(elements)}}
        )

    def map(self, name: str, types: Sequence[str], elements: Iterable[tuple[Any, Json]]) -> None:
        """A map to verdicts."""
        described = {"type": _type(types), "map": "verdict"}
        pairs = [[key, verdict] for key, verdict in elements]
        self._objects.append(
            {"map": {**self._place(), "name": name, **described, **_elements(pairs)}}
        )

    def commands(self) -> list[Json]:
        """Remove the table, whether or not it is there, and make it anew."""
        chains = [{"add": item} for item in self._objects if "chain" in item]
        others = [{"add": item} for item in self._objects if "chain" not in item]
        this: Json = {"add": {"table": {"family": self.family, "name": self.name}}}
        return [*self.removal(), this, *chains, *others, *self._rules]

    def removal(self) -> list[Json]:
        """Remove the table; adding it first makes that work where there is none."""
        this = {"table": {"family": self.family, "name": self.name}}
        return [{"add": this}, {"delete": this}]

    def _place(self) -> Json:
        return {"family": self.family, "table": self.name}

    def _add_rules(self, chain: str, rules: Iterable[Sequence[Json]]) -> None:
        for statements in rules:
            rule = {**self._place(), "chain": chain, "expr": list(statements)}
            self._rules.append({"add": {"rule": rule}})


def _type(types: Sequence[str]) -> str | list[str]:
    return types[0] if len(types) == 1 else list(types)


def _elements(elements: Iterable[Any]) -> Json:
    """nft refuses an empty list, so nothing stands for it."""
    found = list(elements)
    return {"elem": found} if found else {}
