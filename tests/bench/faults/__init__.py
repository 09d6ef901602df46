"""Tests of the rows and the table of the faults."""
