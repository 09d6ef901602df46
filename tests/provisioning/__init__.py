"""Provisioning against a moto that nobody changed."""
