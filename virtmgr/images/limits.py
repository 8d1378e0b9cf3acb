"""How large things may be that are imported."""

from __future__ import annotations

from dataclasses import dataclass, field

from virtmgr.domain.layer import LayerLimits

GIB = 1024**3


@dataclass(frozen=True)
class ImportLimits:
    """All in bytes, but for ``layers``."""

    file: int = 512 * GIB  # of a file, download or registry image, compressed or not
    virtual_size: int = 8192 * GIB  # that a disk shows to its guest
    kernel: int = GIB  # kernel and initial RAM disk, each
    document: int = 4 * 1024**2  # OCI index, manifest, configuration
    layers: int = 512
    layer: LayerLimits = field(default_factory=LayerLimits)

    def archive(self, stored: int) -> int:
        """The most bytes that an archive of ``stored`` compressed bytes may expand to."""
        return min(self.file, max(self.layer.free_size, stored * self.layer.ratio))
