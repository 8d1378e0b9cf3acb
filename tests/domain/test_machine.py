"""A host is one machine, and a machine is one host."""

from __future__ import annotations

import pytest

from tests.store.inventory import Inventory
from virtmgr.domain.errors import Forbidden
from virtmgr.domain.host import Host
from virtmgr.domain.machine import Machine, check_machine, is_news


def host(name: str, machine_id: str = "", hostname: str = "") -> Host:
    return Inventory().make_host(name=name, facts={"machine_id": machine_id, "hostname": hostname})


NODE1, NODE2 = host("node1", "1" * 32, "one"), host("node2", "2" * 32, "two")
NEW = host("node3")
HOSTS = [NODE1, NODE2, NEW]


@pytest.mark.parametrize(
    ("of", "machine", "may_replace"),
    [
        (NEW, Machine("3" * 32, "three"), False),
        (NODE1, Machine("1" * 32, "renamed"), False),
        (NODE1, Machine("3" * 32, "three"), True),
        (NODE1, Machine("", "one"), False),
        (host("older"), Machine("4" * 32, "older"), False),
    ],
)
def test_it_may(of: Host, machine: Machine, may_replace: bool) -> None:
    check_machine(of, machine, HOSTS, may_replace=may_replace)


def test_another_machine_is_refused_and_both_are_named() -> None:
    with pytest.raises(Forbidden) as refused:
        check_machine(NODE1, Machine("3" * 32, "three"), HOSTS)
    assert refused.value.code == "another_machine"
    for name in ("node1", "one", "1" * 32, "three", "3" * 32):
        assert name in refused.value.message
    assert "--another-machine" in str(refused.value.hint)


@pytest.mark.parametrize(("of", "may_replace"), [(NEW, False), (NODE1, True)])
def test_a_machine_that_is_another_host_is_refused(of: Host, may_replace: bool) -> None:
    with pytest.raises(Forbidden) as refused:
        check_machine(of, Machine("2" * 32, "copy"), HOSTS, may_replace=may_replace)
    assert refused.value.code == "machine_enrolled"
    assert "'node2'" in refused.value.message
    assert "host token node2 --again" in str(refused.value.hint)
    assert "machine-id" in str(refused.value.hint)


def test_what_is_known_is_no_news() -> None:
    assert not is_news(NODE1, Machine("1" * 32, "other"))
    assert is_news(NEW, Machine("1" * 32, "one"))
