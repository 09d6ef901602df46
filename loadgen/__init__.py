"""The load generator: sends HTTP requests at a constant rate and counts exactly what became of each."""

from loadgen.errors import LoadError
from loadgen.load import Load
from loadgen.report import Report

__all__ = ["Load", "LoadError", "Report"]
