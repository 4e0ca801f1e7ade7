"""The project's own exceptions. Their texts never hold a secret, a full phone number or a message text."""


class ReceiverError(Exception):
    """Base of all errors that receiver raises on purpose."""


class SettingsError(ReceiverError):
    """A setting is wrong or missing; the text names the variable and never prints its value."""


class Unreadable(ReceiverError):
    """A body cannot be read at all (not JSON or XML, truncated, not an object); the text says why."""


class NotCommitted(ReceiverError):
    """The database could not commit within the deadline: nothing is promised to be durable."""
