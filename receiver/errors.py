"""The project's own exceptions. Their texts never hold a secret, a full phone number or a message text."""


class ReceiverError(Exception):
    """Base of all errors that receiver raises on purpose."""


class SettingsError(ReceiverError):
    """Settings are wrong or missing; each line of the text names a variable, and none prints a value."""


class WrongUse(ReceiverError):
    """A command was called in a way that makes no sense."""


class Unreadable(ReceiverError):
    """A body cannot be read at all (not JSON or XML, truncated, not an object); the text says why."""


class NotCommitted(ReceiverError):
    """The database could not commit within the deadline: nothing is promised to be durable."""
