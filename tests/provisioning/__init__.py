"""Provisioning against a moto that nobody changed, and in the rehearsal as AWS is on the first day."""
