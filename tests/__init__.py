"""The fast tests: no engine, no network, no root."""
