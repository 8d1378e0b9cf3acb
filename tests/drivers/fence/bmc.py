"""An IPMI BMC of a machine that is only a flag. python -m tests.drivers.fence.bmc PORT"""

from __future__ import annotations

import sys
from typing import Any

from pyghmi.ipmi import bmc
from pyghmi.ipmi.private import serversession

_HMAC_SHA1 = 1  # IPMI 2.0, table 13-17
_NO_SUCH_SUITE = 0x11  # table 13-15
USER, PASSWORD = "admin", "pass word"


class Machine(bmc.Bmc):  # type: ignore[misc]
    """Its power is on until it is cut."""

    power = "on"

    def get_power_state(self) -> str:
        return self.power

    def power_off(self) -> None:
        self.power = "off"

    def power_on(self) -> None:
        self.power = "on"

    def get_boot_device(self) -> Any:
        return "default"


class Session(serversession.ServerSession):  # type: ignore[misc]
    """pyghmi's server knows HMAC-SHA1 only, and does not say so; a real BMC does."""

    def create_open_session_response(self, request: bytearray) -> bytearray:
        if request[12] & 0x3F != _HMAC_SHA1:
            return bytearray([request[0], _NO_SUCH_SUITE, 0, 0]) + bytearray(request[4:8])
        return bytearray(super().create_open_session_response(request))


serversession.ServerSession = Session

if __name__ == "__main__":
    machine = Machine({USER: PASSWORD}, port=int(sys.argv[1]), address="127.0.0.1")
    print("ready", flush=True)
    machine.listen()
