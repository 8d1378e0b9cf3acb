"""The inventory on SQLite or PostgreSQL: implements ``virtmgr.ports.unit_of_work``."""
