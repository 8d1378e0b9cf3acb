"""The tap devices that libvirt makes for NICs: ports of bridges, without addresses of their own.

The kernel would give each a link-local address a second after its VM starts. Nobody can use it, and
programs on the host take a new address for another network: browsers break off what they load.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from virtmgr.domain.network import port_name
from virtmgr.domain.sync import DesiredWorkload

_log = structlog.get_logger()
_IPV6 = Path("/proc/sys/net/ipv6/conf")


def keep_without_addresses(workload: DesiredWorkload) -> None:
    """Those that are there; they go with the VM, which runs as well without this."""
    for nic in workload.nics:
        setting = _IPV6 / port_name(nic.id) / "disable_ipv6"
        try:
            setting.write_text("1")
        except FileNotFoundError:
            continue  # it is not attached, it ended meanwhile, or the host has no IPv6
        except OSError as error:
            _log.warning("tap.has_addresses", workload=workload.name, error=str(error))
