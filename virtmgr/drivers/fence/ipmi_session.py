"""One IPMI session: a question as JSON on standard input, its answer on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What the BMC says; ``error`` if it does not, ``missing`` if there is no client."""
    try:
        from pyghmi.exceptions import PyghmiException
        from pyghmi.ipmi.command import Command
    except ImportError as error:
        return {"missing": str(error)}
    what = question.pop("what")
    try:
        command = Command(**question, keepalive=False)
        if what == "off":
            return dict(command.set_power("off", wait=False))
        return dict(command.get_power())
    except (PyghmiException, OSError) as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
