"""The domains of this agent among all that libvirt has."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.libvirt import domain_xml, power
from virtmgr.drivers.libvirt.connection import Connection
from virtmgr.drivers.libvirt.errors import NO_DOMAIN, attempt

_INACTIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG


class Domains:
    """Those that bear our mark and ``state_directory``; no others are ever touched."""

    def __init__(self, connection: Connection, state_directory: Path) -> None:
        self._connection = connection
        self._state = str(state_directory)

    def ids(self) -> set[str]:
        """The workloads that have one."""
        with attempt("list VMs"):
            return {
                domain.UUIDString()
                for domain in self._connection.get().listAllDomains()
                if self._is_ours(domain)
            }

    def find(self, workload_id: str) -> Any:
        """The domain of ``workload_id``, None if there is none.

        :raises DriverError: libvirt does not answer, or the domain is not ours.
        """
        try:
            with attempt(f"look for VM {workload_id}"):
                domain = self._connection.get().lookupByUUIDString(workload_id)
                ours = self._is_ours(domain)
        except DriverError as error:
            if error.code == NO_DOMAIN:
                return None
            raise
        if not ours:
            raise DriverError(
                f"cannot use domain {workload_id}: it was not made by this agent",
                hint="remove it, or leave it; virtmgr does not touch it",
            )
        return domain

    def _is_ours(self, domain: Any) -> bool:
        if not domain.name().startswith(domain_xml.NAME_PREFIX):
            return False
        try:
            # One that comes from another host has no definition here until it is whole.
            where = _INACTIVE if domain.isPersistent() else libvirt.VIR_DOMAIN_AFFECT_LIVE
            text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain_xml.NAMESPACE, where)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (
                libvirt.VIR_ERR_NO_DOMAIN_METADATA,
                libvirt.VIR_ERR_NO_DOMAIN,
            ):
                return False
            raise
        return ElementTree.fromstring(text).get("state") == self._state

    def require(self, workload_id: str) -> Any:
        """The domain of ``workload_id``.

        :raises DriverError: there is none, or see ``find``.
        """
        domain = self.find(workload_id)
        if domain is None:
            raise DriverError(
                f"cannot use VM {workload_id}: this host has none of that id",
                code=NO_DOMAIN,
                hint="prepare it first",
            )
        return domain

    def require_running(self, workload_id: str) -> Any:
        """The same, of a VM that runs.

        :raises DriverError: it does not, or see ``require``.
        """
        domain = self.require(workload_id)
        if not power.is_active(domain):
            raise DriverError(
                f"cannot reach into VM {workload_id}: it does not run", hint="start it"
            )
        return domain
