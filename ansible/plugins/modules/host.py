#!/usr/bin/python
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host
short_description: Registration of hosts, their labels, and whether they take new workloads
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Registers a host and returns its one-time join token; changes and forgets hosts.
  - The playbook C(virtmgr.core.enroll) does all of it.
  - What is left out stays as it is.
extends_documentation_fragment:
  - virtmgr.core.connection
  - virtmgr.core.connection.changing
options:
  name:
    description: Its name.
    type: str
    required: true
  cluster:
    description: Its cluster, when it is registered.
    type: str
  labels:
    description: Labels to set. One with the value V(null) is taken away.
    type: dict
  cordoned:
    description: Whether it takes nothing new.
    type: bool
"""

EXAMPLES = r"""
- name: Give a host nothing new
  virtmgr.core.host:
    name: node2
    cordoned: true
"""

RETURN = r"""
object:
  description: The host afterwards; in check mode as before. Empty when it is gone.
  returned: success
  type: dict
join_token:
  description: With which its agent joins, once, within an hour. Register the result with
    C(no_log).
  returned: when it was registered now
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtmgr.core.plugins.module_utils.client import (
    CONNECTION,
    Noun,
    bring_to,
    given,
    run,
    take_away,
)

_HOSTS = Noun("/hosts")


def converge(client, wanted, check):
    """Bring the host to what ``wanted``, the module's parameters, says."""
    name = wanted["name"]
    if wanted["state"] == "absent":
        result = take_away(client, _HOSTS, name, check)
        if not check:
            _wait_until_gone(client, name)
        return result
    known = client.get(_HOSTS.path(name))[0] is not None
    fields = ("labels",) if known else ("labels", "cluster")
    result = bring_to(client, _HOSTS, name, given(wanted, fields), check)
    if not known and not check:
        result["join_token"] = result["answer"]["join_token"]
    if wanted["cordoned"] is not None and result["object"]:
        _cordon(client, wanted, result, check)
    return result


def _wait_until_gone(client, name):
    """A host that answers has a minute to clear up."""
    deadline = time.monotonic() + 90
    while client.get(_HOSTS.path(name))[0] is not None and time.monotonic() < deadline:
        time.sleep(1)


def _cordon(client, wanted, result, check):
    path = _HOSTS.path(wanted["name"])
    if result["object"]["cordoned"] == wanted["cordoned"]:
        return
    client.change("POST", path + ("/cordon" if wanted["cordoned"] else "/uncordon"), dry_run=check)
    result["changed"] = True
    if not check:
        result["object"] = client.get(path)[0]


def main():
    """Bring the host to what is wanted."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "cluster": {"type": "str"},
            "labels": {"type": "dict"},
            "cordoned": {"type": "bool"},
        },
        supports_check_mode=True,
    )
    run(module, lambda client: converge(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
