"""The registry: adding a provider is adding a folder here and one line below."""

from receiver.providers.base import Provider
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus

PROVIDERS: tuple[type[Provider], ...] = (Infobip, MessagingPlus)
