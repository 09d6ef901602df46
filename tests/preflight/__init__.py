"""Tests of the checks that come before anything is touched."""
