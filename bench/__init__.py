"""Measures the project from outside: a load generator, and the harness of the faults. It imports no test."""
