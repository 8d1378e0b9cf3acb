"""Everything that virtmgr can refuse or fail at, as one small hierarchy.

    VirtmgrError
    ├── InvalidRequest        the request breaks a rule of its schema          (422)
    ├── Unauthenticated       no valid token or certificate                    (401)
    ├── Forbidden             the role is too small                            (403)
    ├── NotFound              it is not there, or may not be seen              (404)
    ├── Conflict              the present state does not allow it              (409)
    │   ├── NameTaken
    │   ├── IllegalTransition
    │   ├── QuotaExceeded
    │   ├── NoPlacement
    │   └── Protected
    ├── PreconditionFailed    If-Match does not match the current version      (412)
    ├── TooManyRequests       slow down                                        (429)
    ├── Unavailable           a part that is needed does not answer            (503)
    └── HostError             a step on a host failed                          (502)
        ├── ImageError        an image is refused, corrupt or out of reach
        ├── NetworkError
        ├── StorageError
        └── DriverError
            └── Unsupported   the driver declares that it cannot do this

``code`` is stable: scripts and documentation may rely on it. A message says what
was attempted, on what and why it failed; ``hint`` says what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class VirtmgrError(Exception):
    """Base of all errors that virtmgr raises on purpose."""

    default_code: ClassVar[str] = "internal_error"
    default_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        field: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an error.

        :param message: what was attempted, on what, and why it failed.
        :param code: stable identifier; the class's ``default_code`` unless given.
        :param hint: what the reader should do next; the class's ``default_hint`` unless given.
        :param field: the offending field of the request, dotted (``nics.0.network``).
        :param detail: further JSON-able facts, such as a placement's explanation.
        """
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint or self.default_hint
        self.field = field
        self.detail: dict[str, Any] = dict(detail or {})


class InvalidRequest(VirtmgrError):
    default_code = "invalid_request"


class Unauthenticated(VirtmgrError):
    default_code = "unauthenticated"


class Forbidden(VirtmgrError):
    default_code = "forbidden"


class NotFound(VirtmgrError):
    default_code = "not_found"
    default_hint = "list what there is: names and ids are exact"


class Conflict(VirtmgrError):
    default_code = "conflict"


class NameTaken(Conflict):
    default_code = "name_taken"


class IllegalTransition(Conflict):
    default_code = "illegal_transition"


class QuotaExceeded(Conflict):
    default_code = "quota_exceeded"


class NoPlacement(Conflict):
    default_code = "no_placement"


class Protected(Conflict):
    default_code = "protected"


class PreconditionFailed(VirtmgrError):
    default_code = "precondition_failed"


class TooManyRequests(VirtmgrError):
    default_code = "too_many_requests"


class Unavailable(VirtmgrError):
    default_code = "unavailable"


class HostError(VirtmgrError):
    default_code = "host_error"


class ImageError(HostError):
    default_code = "image_error"


class NetworkError(HostError):
    default_code = "network_error"


class StorageError(HostError):
    default_code = "storage_error"


class DriverError(HostError):
    default_code = "driver_error"


class Unsupported(DriverError):
    default_code = "unsupported"
