"""domain/scheduling"""
