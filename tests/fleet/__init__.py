"""Tests of the program flask-fleet without Ansible and without an engine."""
