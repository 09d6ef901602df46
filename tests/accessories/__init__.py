"""Databases in real containers."""
