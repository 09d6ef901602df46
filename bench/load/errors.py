"""What a person is told when no load can be made; what a server does wrong is counted instead."""


class LoadError(Exception):
    """The load cannot be started or measured; the message says why and what to do."""
