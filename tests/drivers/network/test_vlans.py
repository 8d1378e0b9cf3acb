"""VLAN devices, against a netlink that behaves: few machines for tests have 802.1Q."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import NetworkType, bridge_name, vlan_name
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network import vlans
from virtmgr.drivers.network.netlink import Link
from virtmgr.drivers.network.vlans import Vlans

ID = "01890000-0000-7000-8000-0000000000aa"
NAME = vlan_name(ID)


@dataclass
class Kernel:
    """Devices by name, and what was asked of them."""

    links: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, kind: str, **given: Any) -> None:
        index = len(self.links) + 1
        known = {"mac": "", "mtu": 1500, "up": True, "alias": "", "master": None, "peer": None}
        self.links[name] = {"index": index, "name": name, "kind": kind, **known, **given}

    def link(self, verb: str, **given: Any) -> list[Any]:
        self.asked.append(verb)
        if verb == "add":
            self.add(given["ifname"], given["kind"], peer=given["link"], up=False)
            self.links[given["ifname"]]["vlan"] = given["vlan_id"]
            return []
        found = next(each for each in self.links.values() if each["index"] == given["index"])
        if verb == "del":
            del self.links[found["name"]]
        elif verb == "set":
            names = {"ifalias": "alias", "state": "up"}
            values = {names.get(k, k): v for k, v in given.items() if k != "index"}
            found |= {**values, **({"up": True} if "up" in values else {})}
        return [_Message(found)]

    def find(self, _ip: object, name: str) -> Link | None:
        found = self.links.get(name)
        return None if found is None else Link(**{k: found[k] for k in Link.__annotations__})


@dataclass
class _Message:
    found: dict[str, Any]

    def get_nested(self, *_path: str) -> _Message:
        return self

    def get_attr(self, name: str) -> Any:
        assert name == "IFLA_VLAN_ID"
        return self.found.get("vlan")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    made.add("eth1", "")
    made.add(bridge_name(ID), "bridge")

    @contextmanager
    def netlink(_attempt: str) -> Iterator[Kernel]:
        yield made

    def delete(_ip: object, name: str) -> None:
        made.asked.append("del")
        made.links.pop(name)

    monkeypatch.setattr(vlans, "netlink", netlink)
    monkeypatch.setattr(vlans, "find_link", made.find)
    monkeypatch.setattr(vlans, "delete_link", delete)
    monkeypatch.setattr(vlans, "deny_addresses", lambda _: None)
    return made


def network(**given: Any) -> DesiredNetwork:
    known: dict[str, Any] = {
        "id": ID,
        "name": "office",
        "type": NetworkType.VLAN,
        "bridge": bridge_name(ID),
        "ipv4": "192.0.2.0/24",
        "gateway4": "192.0.2.1",
        "interface": "eth1",
        "vlan": 7,
        "mtu": 1400,
    }
    return DesiredNetwork(**{**known, **given})


def test_the_device_is_as_desired_and_made_once(kernel: Kernel) -> None:
    Vlans("virtmgr:t:").ensure(network())
    made = kernel.links[NAME]
    assert (made["kind"], made["vlan"], made["peer"]) == ("vlan", 7, kernel.links["eth1"]["index"])
    assert (made["mtu"], made["up"], made["alias"]) == (1400, True, f"virtmgr:t:{ID}")
    assert made["master"] == kernel.links[bridge_name(ID)]["index"]
    kernel.asked.clear()
    Vlans("virtmgr:t:").ensure(network())
    assert kernel.asked == ["get"]


@pytest.mark.parametrize("changed", [{"vlan": 8}, {"interface": "eth2"}])
def test_another_id_or_interface_makes_it_anew(kernel: Kernel, changed: dict[str, Any]) -> None:
    kernel.add("eth2", "")
    Vlans("virtmgr:t:").ensure(network())
    before = kernel.links[NAME]
    Vlans("virtmgr:t:").ensure(network(**changed))
    after = kernel.links[NAME]
    assert after is not before
    assert (after["vlan"], after["peer"]) != (before["vlan"], before["peer"])


def test_what_others_changed_is_put_right(kernel: Kernel) -> None:
    Vlans("virtmgr:t:").ensure(network())
    kernel.links[NAME] |= {"mtu": 1500, "master": None, "up": False}
    Vlans("virtmgr:t:").ensure(network())
    found = kernel.links[NAME]
    assert (found["mtu"], found["up"]) == (1400, True)
    assert found["master"] == kernel.links[bridge_name(ID)]["index"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"interface": "eth9"}, "interface_missing"), ({"mtu": 9000}, "mtu_too_large")],
)
def test_what_the_host_cannot_do_is_refused(
    kernel: Kernel, changed: dict[str, Any], code: str
) -> None:
    with pytest.raises(NetworkError) as refused:
        Vlans("virtmgr:t:").ensure(network(**changed))
    assert refused.value.code == code
    assert refused.value.hint
    assert NAME not in kernel.links


def test_devices_of_others_are_left_alone(kernel: Kernel) -> None:
    kernel.add(NAME, "dummy", alias="mine")
    with pytest.raises(NetworkError, match="which another device has"):
        Vlans("virtmgr:t:").ensure(network())
    assert kernel.links[NAME]["kind"] == "dummy"
