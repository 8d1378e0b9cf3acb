#!/usr/bin/python
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: project
short_description: Projects and what they may use
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Makes, changes and deletes projects, and sets their quotas.
  - What is left out stays as it is.
extends_documentation_fragment:
  - virtmgr.core.connection
  - virtmgr.core.connection.changing
options:
  name:
    description: Its name.
    type: str
    required: true
  description:
    description: Free text for people.
    type: str
  labels:
    description: Labels to set. One with the value V(null) is taken away.
    type: dict
  quota:
    description: Limits to set, of V(workloads), V(vcpus), V(memory), V(disk), V(volumes) and
      V(addresses). V(null) is no limit.
    type: dict
"""

EXAMPLES = r"""
- name: A project with a quota
  virtmgr.core.project:
    name: blue
    description: The blue team
    quota: {vcpus: 8, memory: 16GiB, workloads: 20}
"""

RETURN = r"""
object:
  description: The project afterwards; in check mode as before. Empty when it is gone.
  returned: success
  type: dict
quota:
  description: The limits, and what is used of them.
  returned: when O(quota) is given
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtmgr.core.plugins.module_utils.client import (
    CONNECTION,
    Noun,
    bring_to,
    given,
    run,
    take_away,
)

_FIELDS = ("description", "labels")


def converge(client, wanted, check):
    """Bring the project and its quota to what ``wanted``, the module's parameters, says."""
    noun = Noun("/projects")
    if wanted["state"] == "absent":
        return take_away(client, noun, wanted["name"], check)
    result = bring_to(client, noun, wanted["name"], given(wanted, _FIELDS), check)
    is_new = check and not result["object"]  # nobody can ask for its quota yet
    if wanted["quota"] and not is_new:
        limits = {f"limit_{name}": value for name, value in wanted["quota"].items()}
        quota = bring_to(client, Noun(noun.path(wanted["name"])), "quota", limits, check)
        result["changed"] = result["changed"] or quota["changed"]
        result["diff"] = [each["diff"] for each in (result, quota) if each["diff"]]
        result["quota"] = quota["object"]
    return result


def main():
    """Bring the project to what is wanted."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "description": {"type": "str"},
            "labels": {"type": "dict"},
            "quota": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    run(module, lambda client: converge(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
