#!/usr/bin/python
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network
short_description: Networks that workloads are on
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Makes, changes and deletes networks of a project.
  - Of one that is there, only domain and labels can be changed.
  - What is left out stays as it is.
extends_documentation_fragment:
  - virtmgr.core.connection
  - virtmgr.core.connection.changing
options:
  name:
    description: Its name.
    type: str
    required: true
  project:
    description: The project that it belongs to.
    type: str
    default: default
  type:
    description: V(nat) is private on each host; V(overlay) is the same across hosts; V(bridge) is a
      bridge of the hosts; V(vlan) is a VLAN on an interface of the hosts.
    type: str
  ipv4:
    description: CIDR; its first address is the gateway.
    type: str
  ipv6:
    description: CIDR; its first address is the gateway.
    type: str
  interface:
    description: The interface of the hosts, for O(type=vlan).
    type: str
  vlan:
    description: The id, for O(type=vlan).
    type: int
  bridge:
    description: The bridge on the hosts, for O(type=bridge).
    type: str
  mtu:
    description: Largest packet, in bytes.
    type: int
  dns_domain:
    description: The domain of its workloads' names.
    type: str
  labels:
    description: Labels to set. One with the value V(null) is taken away.
    type: dict
"""

EXAMPLES = r"""
- name: A private network
  virtmgr.core.network:
    name: back
    project: blue
    type: nat
    ipv4: 10.20.0.0/24
"""

RETURN = r"""
object:
  description: The network afterwards; in check mode as before. Empty when it is gone.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtmgr.core.plugins.module_utils.client import (
    CONNECTION,
    Noun,
    bring_to,
    given,
    run,
    segment,
    take_away,
)

_FIELDS = ("type", "ipv4", "ipv6", "bridge", "interface", "vlan", "mtu", "dns_domain", "labels")


def converge(client, wanted, check):
    """Bring the network to what ``wanted``, the module"s parameters, says."""
    noun = Noun(f"/projects/{segment(wanted['project'])}/networks")
    if wanted["state"] == "absent":
        return take_away(client, noun, wanted["name"], check)
    return bring_to(client, noun, wanted["name"], given(wanted, _FIELDS), check)


def main():
    """Bring the network to what is wanted."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "project": {"type": "str", "default": "default"},
            "type": {"type": "str"},
            "ipv4": {"type": "str"},
            "ipv6": {"type": "str"},
            "bridge": {"type": "str"},
            "interface": {"type": "str"},
            "vlan": {"type": "int"},
            "mtu": {"type": "int"},
            "dns_domain": {"type": "str"},
            "labels": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    run(module, lambda client: converge(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
