"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: virtmgr
short_description: Hosts and workloads of virtmgr
version_added: "0.1.0"
author: The virtmgr authors
description:
  - Takes hosts and workloads from virtmgr. The file's name must end in C(virtmgr.yml) or
    C(virtmgr.yaml).
  - Hosts are in the group C(virtmgr_hosts), under their name; workloads in C(virtmgr_workloads), as
    C(NAME.PROJECT). Both are also in C(cluster_NAME), C(state_STATE) and, for every label, in
    C(label_KEY_VALUE); workloads in C(kind_vm) or C(kind_container), C(init_app) or C(init_system),
    C(project_NAME) and C(on_HOST).
  - Every one has the variable C(virtmgr), with what the REST API says of it, and C(ansible_host)
    where an address is known.
extends_documentation_fragment:
  - virtmgr.core.connection
  - constructed
  - inventory_cache
options:
  plugin:
    description: V(virtmgr.core.virtmgr)
    required: true
    choices: [virtmgr.core.virtmgr]
  hosts:
    description: Whether hosts are taken.
    type: bool
    default: true
  workloads:
    description: Whether workloads are taken.
    type: bool
    default: true
  projects:
    description: The projects whose workloads are taken. By default all that may be seen.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
# site.virtmgr.yml
plugin: virtmgr.core.virtmgr
server: https://10.0.0.1:7443
ca_file: ca.crt
token_file: ~/.config/virtmgr/token
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/virtmgr-inventory
keyed_groups:
  - key: virtmgr.image.name | default('none')
    prefix: image
"""

from urllib.parse import urlsplit

from ansible.errors import AnsibleParserError
from ansible_collections.virtmgr.core.plugins.module_utils.client import (
    CONNECTION,
    ApiError,
    Client,
)

from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Reads, or takes from the cache, what there is, and sorts it into groups."""

    NAME = "virtmgr.core.virtmgr"

    def verify_file(self, path):
        """Only files that are named for it."""
        named = path.endswith(("virtmgr.yml", "virtmgr.yaml"))
        return super().verify_file(path) and named

    def parse(self, inventory, loader, path, cache=True):
        """Fill the inventory."""
        super().parse(inventory, loader, path)
        self._read_config_data(path)
        key = self.get_cache_key(path)
        use_cache = cache and self.get_option("cache")
        found = self._cache.get(key) if use_cache else None
        if found is None:
            found = self._fetch()
            if self.get_option("cache"):
                self._cache[key] = found
        for host in found["hosts"]:
            self._add(host["name"], "virtmgr_hosts", host, host_groups(host), host_address(host))
        for workload in found["workloads"]:
            name = f"{workload['name']}.{workload['project']['name']}"
            groups, address = workload_groups(workload), workload_address(workload)
            self._add(name, "virtmgr_workloads", workload, groups, address)

    def _fetch(self):
        options = {name: self.get_option(name) for name in CONNECTION}
        wanted = self.get_option("projects")
        try:
            client = Client.from_options(options)
            hosts = list(client.list("/hosts")) if self.get_option("hosts") else []
            workloads = list(client.list("/workloads")) if self.get_option("workloads") else []
        except ApiError as error:
            raise AnsibleParserError(f"asking virtmgr failed: {error}") from error
        if wanted:
            workloads = [each for each in workloads if each["project"]["name"] in wanted]
        return {"hosts": hosts, "workloads": workloads}

    def _add(self, name, main_group, thing, groups, address):
        self.inventory.add_host(name)
        for group in (main_group, *groups):
            self.inventory.add_group(self._sanitize_group_name(group))
            self.inventory.add_host(name, group=self._sanitize_group_name(group))
        self.inventory.set_variable(name, "virtmgr", thing)
        if address:
            self.inventory.set_variable(name, "ansible_host", address)
        strict = self.get_option("strict")
        variables = self.inventory.get_host(name).get_vars()
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        variables = self.inventory.get_host(name).get_vars()
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(
            self.get_option("keyed_groups"), variables, name, strict=strict
        )


def host_groups(host):
    """The groups of a host, as it is in answers."""
    yield f"cluster_{host['cluster']['name']}"
    yield f"state_{host['state']}"
    yield from _label_groups(host)


def workload_groups(workload):
    """The groups of a workload, as it is in answers."""
    yield f"cluster_{workload['cluster']['name']}"
    yield f"state_{workload['status']['state']}"
    yield f"kind_{workload['kind']}"
    yield f"project_{workload['project']['name']}"
    if workload["init"]:
        yield f"init_{workload['init']}"
    if workload["host"]:
        yield f"on_{workload['host']['name']}"
    yield from _label_groups(workload)


def _label_groups(thing):
    for key, value in sorted(thing["labels"].items()):
        yield f"label_{key}_{value}" if value else f"label_{key}"


def host_address(host):
    """Where its agent listens, unless that is loopback only."""
    address = urlsplit(host["facts"].get("stream_url") or "").hostname
    return None if address is None or address.startswith("127.") or address == "::1" else address


def workload_address(workload):
    """The first address of its first NIC that has one."""
    addresses = [address for nic in workload["nics"] for address in nic["addresses"]]
    return addresses[0].partition("/")[0] if addresses else None
