"""Repositories over SQL, one file per noun."""
