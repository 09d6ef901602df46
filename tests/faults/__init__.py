"""What the proof under faults is made of: rows with goals, the table of them, and what makes the faults."""
