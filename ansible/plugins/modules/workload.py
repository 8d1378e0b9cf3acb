#!/usr/bin/python
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workload
short_description: Virtual machines, system containers and application containers
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Makes, changes and deletes workloads of every kind, and waits until the host has done it.
  - The fields of O(spec) are those of the REST API; C(virtmgr explain workload) describes them.
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
  spec:
    description: What is wanted of it. In a list (nics, volumes, ports), every entry that is wanted.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: A web server in a container
  virtmgr.core.workload:
    name: web1
    project: blue
    spec:
      kind: container
      image: nginx
      resources: {memory: 256MiB}
      ports: [{host_port: 8080, port: 80}]

- name: Stop a virtual machine
  virtmgr.core.workload:
    name: vm1
    spec: {state: stopped}

- name: Delete it
  virtmgr.core.workload:
    name: vm1
    state: absent
"""

RETURN = r"""
object:
  description: The workload afterwards; in check mode as before. Empty when it is gone.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtmgr.core.plugins.module_utils.client import (
    CONNECTION,
    Noun,
    bring_to,
    run,
    segment,
    take_away,
)


def converge(client, wanted, check):
    """Bring the workload to what ``wanted``, the module's parameters, says."""
    collection = f"/projects/{segment(wanted['project'])}/workloads"
    noun = Noun(collection, spec="spec", would="workload")
    if wanted["state"] == "absent":
        return take_away(client, noun, wanted["name"], check)
    return bring_to(client, noun, wanted["name"], wanted["spec"], check)


def main():
    """Bring the workload to what is wanted."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "project": {"type": "str", "default": "default"},
            "spec": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    run(module, lambda client: converge(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
