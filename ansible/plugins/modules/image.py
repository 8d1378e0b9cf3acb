#!/usr/bin/python
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Images that workloads start from
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Imports and builds images, waits for it, sets their labels and names, and deletes them.
  - What is left out stays as it is.
extends_documentation_fragment:
  - virtmgr.core.connection
  - virtmgr.core.connection.changing
options:
  name:
    description: Its name.
    type: str
    required: true
  source:
    description: Where it is imported from, where it is not there yet, as C(virtmgr image import)
      takes it, V(docker://HOST/NAME:TAG) or a URL.
    type: str
  build:
    description: What it is built from, where it is not there yet, with the members V(distribution),
      V(suite), V(kind) and V(init).
    type: dict
  checksum:
    description: V(sha256:…) of what is imported from a URL.
    type: str
  init:
    description: What a container from it is, V(app) or V(system).
    type: str
  aliases:
    description: Its further names, all of them.
    type: list
    elements: str
  labels:
    description: Labels to set. One with the value V(null) is taken away.
    type: dict
"""

EXAMPLES = r"""
- name: An image from a registry
  virtmgr.core.image:
    name: nginx
    source: docker://docker.io/library/nginx:1.27

- name: A small image, built
  virtmgr.core.image:
    name: busybox
    build: {distribution: busybox, kind: container}
"""

RETURN = r"""
object:
  description: The image afterwards; in check mode as before. Empty when it is gone.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.virtmgr.core.plugins.module_utils.client import (
    CONNECTION,
    ApiError,
    Noun,
    bring_to,
    given,
    run,
    take_away,
)


def converge(client, wanted, check):
    """Bring the image to what ``wanted``, the module's parameters, says."""
    name = wanted["name"]
    noun = Noun("/images")
    if wanted["state"] == "absent":
        return take_away(client, noun, name, check)
    current, _etag = client.get(noun.path(name))
    fields = given(wanted, ("labels", "aliases"))
    if current is not None and current["state"] != "failed":
        return bring_to(client, noun, name, fields, check)
    made = _made_from(wanted)
    if current is not None:
        # one whose import failed stays to be looked at, until another takes its name
        client.change("DELETE", noun.path(name), dry_run=check)
        if check:
            return {"changed": True, "diff": {}, "object": current}
    how = "/images/build" if wanted["build"] else "/images/import"
    return bring_to(client, Noun("/images", make=how), name, dict(fields, **made), check)


def _made_from(wanted):
    if wanted["build"]:
        return wanted["build"]
    if wanted["source"]:
        return given(wanted, ("source", "checksum", "init"))
    raise ApiError(f"there is no image {wanted['name']} yet: give 'source' or 'build'")


def main():
    """Bring the image to what is wanted."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "source": {"type": "str"},
            "build": {"type": "dict"},
            "checksum": {"type": "str"},
            "init": {"type": "str"},
            "aliases": {"type": "list", "elements": "str"},
            "labels": {"type": "dict"},
        },
        mutually_exclusive=[("source", "build")],
        supports_check_mode=True,
    )
    run(module, lambda client: converge(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
