"""The one kind of error that a person may see."""


class RehearsalError(Exception):
    """Something that the user can read and act on; printed as one message, without a traceback."""
