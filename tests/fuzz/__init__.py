"""Fuzzing the parsers of what is not trusted; see ``scripts/fuzz``."""
