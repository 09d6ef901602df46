"""Tests of what is checked before anything is touched."""
