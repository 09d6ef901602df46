"""The fast tests, which need no engine, no network and no root."""
