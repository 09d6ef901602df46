"""Drives and measures a running stack from outside: load, faults, and what tests need for it. It imports no test."""
