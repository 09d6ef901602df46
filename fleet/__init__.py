"""What runs on the machine: roll-outs, databases and certificates of a stack, with the standard library alone."""
