"""The machine's program with a real engine."""
