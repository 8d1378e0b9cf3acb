"""The tap devices that libvirt makes for NICs: ports of bridges, without addresses of their own."""

from __future__ import annotations

import structlog

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import port_name
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.drivers.sysctl import deny_addresses

_log = structlog.get_logger()


def keep_without_addresses(workload: DesiredWorkload) -> None:
    """Those that are there; they go with the VM, which runs as well without this."""
    for nic in workload.nics:
        try:
            deny_addresses(port_name(nic.id))
        except NetworkError as error:
            _log.warning("tap.has_addresses", workload=workload.name, error=error.message)
