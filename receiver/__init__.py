"""receiver: delivery reports of Infobip and Messaging Plus, one right row per message in Postgres."""

__version__ = "0.1.0"
