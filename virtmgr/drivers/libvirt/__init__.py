"""Virtual machines by libvirt and QEMU.

``driver`` is the thin front that implements ``virtmgr.ports.driver``; what it decides stands in
pure modules (``domain_xml``, ``shape``, ``slots``, ``run``), what it does in small ones beside.
"""
