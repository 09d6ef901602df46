"""Tests of the load generator against small servers on 127.0.0.1."""
