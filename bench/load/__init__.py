"""The load generator: sends HTTP requests at a constant rate and counts exactly what became of each."""

from bench.load.errors import LoadError
from bench.load.load import Load
from bench.load.report import Report

__all__ = ["Load", "LoadError", "Report"]
