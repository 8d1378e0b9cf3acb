"""Small guests that real VMs boot in tests; built in seconds, kept in ~/.cache/virtmgr."""
