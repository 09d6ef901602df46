"""Provisioning against an unpatched moto, and against a rehearsal that acts like AWS on the first day."""
