"""The harness of the tests under faults: what makes the faults, rows with goals, and the table of them."""
