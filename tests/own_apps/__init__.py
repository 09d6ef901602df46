"""Deploys apps of other people."""
