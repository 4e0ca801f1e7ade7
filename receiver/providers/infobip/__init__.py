"""Infobip: delivery reports of all channels, pushed and pulled."""

from receiver.providers.infobip.provider import Infobip

__all__ = ["Infobip"]
