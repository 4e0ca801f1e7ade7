"""Messaging Plus: receipts, batches, and codes in hexadecimal."""

from receiver.providers.messaging_plus.provider import MessagingPlus

__all__ = ["MessagingPlus"]
