#!/usr/bin/python
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: volume
short_description: Disks that outlive workloads
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Makes, grows and deletes volumes of a project.
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
  size:
    description: Such as V(10GiB). It can grow while it is not attached.
    type: str
  labels:
    description: Labels to set. One with the value V(null) is taken away.
    type: dict
"""

EXAMPLES = r"""
- name: A disk for a database
  virtmgr.core.volume:
    name: data
    project: blue
    size: 10GiB
"""

RETURN = r"""
object:
  description: The volume afterwards; in check mode as before. Empty when it is gone.
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

_FIELDS = ("size", "labels")


def converge(client, wanted, check):
    """Bring the volume to what ``wanted``, the module"s parameters, says."""
    noun = Noun(f"/projects/{segment(wanted['project'])}/volumes")
    if wanted["state"] == "absent":
        return take_away(client, noun, wanted["name"], check)
    return bring_to(client, noun, wanted["name"], given(wanted, _FIELDS), check)


def main():
    """Bring the volume to what is wanted."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "project": {"type": "str", "default": "default"},
            "size": {"type": "str"},
            "labels": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    run(module, lambda client: converge(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
