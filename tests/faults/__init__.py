"""The parts of the tests under faults: rows with goals, the table of them, and the code that makes the faults."""
