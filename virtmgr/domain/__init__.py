"""The heart of virtmgr: entities, states and decisions. No I/O happens here."""
