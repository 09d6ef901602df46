"""Asks the tools of the field what they find in this project, and shows it as one table: `make audit`."""
