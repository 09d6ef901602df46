"""Tests of the rehearsal with real containers: ``pytest -m docker``."""
