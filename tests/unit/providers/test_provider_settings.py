"""Variables, secrets, and the questions that the providers are asked."""

from __future__ import annotations

import base64

import pytest
import requests
from environs import Env

from receiver.errors import SettingsError
from receiver.providers import PROVIDERS
from receiver.providers.base import Pull
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus

IB_URL = {"INFOBIP_BASE_URL": "https://x.api.infobip.com/"}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without any of our variables."""
    for name in ("BASE_URL", "API_KEY", "USERNAME", "PASSWORD", "CHANNELS", "WEBHOOK_SECRETS"):
        monkeypatch.delenv(f"INFOBIP_{name}", raising=False)
        monkeypatch.delenv(f"MESSAGING_PLUS_{name}", raising=False)
    return monkeypatch


def infobip(env: pytest.MonkeyPatch, **variables: str) -> Infobip:
    for name, value in variables.items():
        env.setenv(name, value)
    return Infobip.from_env(Env())


def messaging_plus(env: pytest.MonkeyPatch, **variables: str) -> MessagingPlus:
    for name, value in variables.items():
        env.setenv(name, value)
    return MessagingPlus.from_env(Env())


def authorized(provider: Infobip | MessagingPlus) -> requests.PreparedRequest:
    request = requests.Request("GET", "https://host/path", params={"details": "true"})
    provider.authorize(request)
    return request.prepare()


def test_without_variables_a_provider_is_off_and_says_so(env: pytest.MonkeyPatch) -> None:
    assert infobip(env).off() == (
        "infobip: the webhook is off, INFOBIP_WEBHOOK_SECRETS is missing",
        "infobip: pulling is off, missing: INFOBIP_BASE_URL, INFOBIP_API_KEY"
        " (or INFOBIP_USERNAME and INFOBIP_PASSWORD)",
    )
    assert messaging_plus(env).off() == (
        "messaging_plus: the webhook is off, MESSAGING_PLUS_WEBHOOK_SECRETS is missing",
        "messaging_plus: pulling is off, missing: MESSAGING_PLUS_API_KEY",
    )
    for provider in PROVIDERS:
        built = provider.from_env(Env())
        assert (built.can_pull, built.secrets()) == (False, ())


def test_with_all_variables_nothing_is_off(env: pytest.MonkeyPatch) -> None:
    one = infobip(env, **IB_URL, INFOBIP_API_KEY="key", INFOBIP_WEBHOOK_SECRETS=" the-new-sesame-1 , the-old-sesame-1,")
    assert (one.off(), one.can_pull, one.base_url) == ((), True, "https://x.api.infobip.com")
    assert one.webhook_secrets == ("the-new-sesame-1", "the-old-sesame-1")
    other = messaging_plus(env, MESSAGING_PLUS_API_KEY="key", MESSAGING_PLUS_WEBHOOK_SECRETS="another-sesame-1")
    assert (other.off(), other.can_pull, other.base_url) == ((), True, "https://mplus.instagiv.com")


def test_an_api_key_goes_before_user_and_password(env: pytest.MonkeyPatch) -> None:
    basic = infobip(env, **IB_URL, INFOBIP_USERNAME="user", INFOBIP_PASSWORD="päss")
    token = base64.b64encode("user:päss".encode()).decode()
    assert authorized(basic).headers["Authorization"] == f"Basic {token}"
    assert basic.secrets() == ("päss", token)
    key = infobip(env, INFOBIP_API_KEY="key")
    assert authorized(key).headers["Authorization"] == "App key"
    assert authorized(key).headers["Accept"] == "application/json"


def test_the_key_of_messaging_plus_is_a_query_parameter(env: pytest.MonkeyPatch) -> None:
    provider = messaging_plus(env, MESSAGING_PLUS_API_KEY="a/b c")
    url = authorized(provider).url
    assert url == "https://host/path?details=true&key=a%2Fb+c"
    assert provider.secrets() == ("a/b c",)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("INFOBIP_BASE_URL", "x.api.infobip.com"),
        ("INFOBIP_BASE_URL", "ftp://host"),
        ("INFOBIP_BASE_URL", "https://"),
        ("INFOBIP_BASE_URL", "https://host:port"),
        ("INFOBIP_BASE_URL", "https://user:pw@host"),
        ("INFOBIP_BASE_URL", "https://host?key=1"),
        ("INFOBIP_API_KEY", "key\nSecret: x"),
        ("INFOBIP_API_KEY", "schlüssel"),
        ("INFOBIP_USERNAME", "us:er"),
        ("INFOBIP_CHANNELS", "sms,telegraph"),
        ("INFOBIP_CHANNELS", "sms,sms-v3"),
        ("INFOBIP_CHANNELS", "messenger,facebook"),
        ("INFOBIP_CHANNELS", "messages-api,sms"),
        ("MESSAGING_PLUS_BASE_URL", "mplus.instagiv.com"),
        ("MESSAGING_PLUS_API_KEY", "a\tb"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable_and_no_value(
    env: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    env.setenv("INFOBIP_PASSWORD" if variable == "INFOBIP_USERNAME" else "UNUSED", "secret")
    env.setenv(variable, value)
    provider = Infobip if variable.startswith("INFOBIP") else MessagingPlus
    with pytest.raises(SettingsError, match=rf"^{variable}: [^\n]+$") as error:
        provider.from_env(Env())
    assert value not in str(error.value)


def test_user_name_and_password_need_each_other(env: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^INFOBIP_PASSWORD: missing"):
        infobip(env, INFOBIP_USERNAME="user")
    env.delenv("INFOBIP_USERNAME")
    with pytest.raises(SettingsError, match=r"^INFOBIP_USERNAME: missing"):
        infobip(env, INFOBIP_PASSWORD="secret")


def test_every_channel_is_one_store_to_drain(env: pytest.MonkeyPatch) -> None:
    assert [pull.path for pull in infobip(env).report_pulls()] == ["/sms/1/reports", "/facebook/1/reports"]
    pulls = infobip(env, INFOBIP_CHANNELS="SMS-v3, messenger,omni,viber,rcs,omni").report_pulls()
    assert [(pull.path, pull.channel) for pull in pulls] == [
        ("/sms/3/reports", "sms"),
        ("/messenger/1/reports", "messenger"),
        ("/omni/1/reports", None),
        ("/viber/2/reports", "viber"),
        ("/rcs/2/reports", "rcs"),
    ]
    assert all(pull.limit == 1000 and pull.params == {"limit": "1000"} for pull in pulls)
    [alone] = infobip(env, INFOBIP_CHANNELS="messages-api").report_pulls()
    assert alone.endpoint == "/messages-api/1/reports"
    assert infobip(env).batch_pull("bulk") is None


def test_a_batch_is_asked_about_again_and_again() -> None:
    provider = MessagingPlus()
    assert provider.batch_pull("ä/../b?c") == Pull(
        "/batch", "/batch/%C3%A4%2F..%2Fb%3Fc", {"details": "true"}, batch_id="ä/../b?c"
    )
    assert [provider.batch_pull(odd) for odd in ("", ".", "..")] == [None, None, None]
    assert provider.report_pulls() == []
