"""receiver: delivery reports of Infobip and Messaging Plus, one correct row for each message in Postgres."""

__version__ = "0.1.0"
