"""virtmgr: one manager for virtual machines and Linux containers."""

__version__ = "0.1.0"
