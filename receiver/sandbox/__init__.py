"""The simulated providers: a web server that behaves as Infobip and Messaging Plus do, and a witness of it."""

from receiver.sandbox.config import SandboxConfig
from receiver.sandbox.main import main
from receiver.sandbox.sandbox import Sandbox

__all__ = ["Sandbox", "SandboxConfig", "main"]
