"""What a sandbox is told: where it pushes, which keys it accepts, and how badly it behaves."""

from __future__ import annotations

from dataclasses import dataclass, field


def _usual_outcomes() -> dict[str, float]:
    return {
        "delivered": 0.76,
        "delivered_via_operator": 0.06,
        "delivered_via_enroute": 0.03,
        "failover": 0.01,
        "undeliverable": 0.05,
        "expired": 0.03,
        "rejected": 0.03,
        "sent": 0.03,
    }


def _usual_receipts() -> dict[str, float]:
    return {"delivered": 0.78, "late": 0.08, "slow": 0.04, "failed": 0.06, "given_up": 0.02, "pending": 0.02}


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """All settings of one sandbox. Shares are between 0 and 1; times are the provider's own, before ``time_scale``."""

    host: str = "127.0.0.1"
    target: str | None = None
    """Base URL of the receiver; None: nothing is pushed, everything waits to be pulled."""
    infobip_webhook_secret: str = ""
    messaging_plus_webhook_secret: str = ""
    webhook_basic_auth: bool = False
    """Secrets go as HTTP Basic password instead of as the last part of the path."""
    api_token: str = ""
    """Bearer token with which the sending application forwards send answers to ``{target}/sent/...``."""

    infobip_api_key: str = "sandbox-infobip-key"
    infobip_username: str = "sandbox"
    infobip_password: str = "sandbox-infobip-password"  # noqa: S105 - the sandbox guards nothing
    messaging_plus_api_key: str = "sandbox-messaging-plus-key"

    seed: int = 0
    time_scale: float = 0.001
    """Compresses the providers' waiting times: 0.001 turns the first retry's minute into 60 ms."""
    outcomes: dict[str, float] = field(default_factory=_usual_outcomes)
    """Weights of the lives of Infobip messages that are not scripted."""
    receipts: dict[str, float] = field(default_factory=_usual_receipts)
    """Weights of the lives of Messaging Plus messages that are not scripted."""

    drop: float = 0.0
    """Share of reports that are never pushed and can only be pulled."""
    duplicate: float = 0.0
    delay: float = 0.0
    """Share of reports pushed 1 to 10 minutes late."""
    reorder: float = 0.0
    """Share of reports held back up to half a minute, so that later ones overtake them."""
    malformed: float = 0.0
    """Share of push requests with a truncated body, wrong types, or another kind of payload beside them."""

    bucket_size: int = 100
    """Reports in one Infobip push; 100 is the provider's default, 2000 its maximum."""
    connections: int = 8
    """Parallel push connections."""
    push_timeout: tuple[float, float] = (5.0, 10.0)
    """Seconds to connect and to wait for the answer (Infobip's sample profile waits 10 s)."""
    push_xml: bool = False
    """Infobip pushes XML unless the message asks otherwise."""
    pushed_stays_pullable: bool = False
    """Whether an acknowledged push can be pulled too; the provider documents neither behaviour."""
    logs_per_minute: int = 120

    def infobip_push_url(self) -> str | None:
        """The subscription's URL."""
        return self._push_url("infobip", self.infobip_webhook_secret)

    def messaging_plus_push_url(self) -> str | None:
        """The URL that an account puts into ``callback``."""
        return self._push_url("messaging-plus", self.messaging_plus_webhook_secret)

    def basic_auth(self, provider: str) -> tuple[str, str] | None:
        """User and password for pushes of ``provider``; None when the secret is in the path."""
        if not self.webhook_basic_auth:
            return None
        secret = self.infobip_webhook_secret if provider == "infobip" else self.messaging_plus_webhook_secret
        return (provider, secret)

    def _push_url(self, slug: str, secret: str) -> str | None:
        if self.target is None:
            return None
        url = f"{self.target.rstrip('/')}/webhooks/{slug}"
        return f"{url}/{secret}" if secret and not self.webhook_basic_auth else url
