"""Solvers of what the domain writes down as problems of whole numbers."""
