"""Tests that deploy apps of other people."""
