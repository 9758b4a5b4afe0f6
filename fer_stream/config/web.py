"""Settings of the web page and the HTTP API."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from fer_stream.config.errors import format_errors
from fer_stream.config.settings import Positive, Settings
from fer_stream.errors import ConfigError

_MIN_TOKEN_LENGTH = 16

Previews = Annotated[
    Literal["on", "blur", "off"],
    # YAML reads a bare `on` as true and `off` as false.
    BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value),
]


def _check_token(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < _MIN_TOKEN_LENGTH:
        raise ValueError(
            f"a token must have at least {_MIN_TOKEN_LENGTH} characters: generate one with `openssl rand -hex 24`"
        )
    return token


Token = Annotated[SecretStr, AfterValidator(_check_token), Field(json_schema_extra={"minLength": _MIN_TOKEN_LENGTH})]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", to_lower=True)]


def _check_network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("expected an address or a network such as 192.0.2.1 or 10.244.0.0/16") from None


Network = Annotated[str, AfterValidator(_check_network)]


class WebSettings(Settings):
    """Web page and HTTP API."""

    host: str = "127.0.0.1"
    """Address to listen on. Any address other than loopback needs a `token`."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = 8080
    """null disables the page and the API."""
    token: Token | None = None
    """Required for everything except the health endpoint, as a bearer token or as the password of any user. Generate
    one with `openssl rand -hex 24`."""
    allowed_hosts: tuple[HostName, ...] = ()
    """Host names under which browsers may open the page, in addition to localhost and IP addresses. Protects against
    DNS rebinding."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks of your own proxies, whose X-Forwarded-For is trusted. Failed logins are limited by
    client address."""
    max_streams: Annotated[int, Field(ge=1, le=1024)] = 32
    """Maximum concurrent live streams. Each occupies a thread."""
    previews: Previews = "on"
    """Camera previews; `blur` blurs detected faces. Previews are only created while somebody views them, and never
    stored."""
    preview_fps: Annotated[float, Field(gt=0, le=10)] = 3.0
    """Preview frames per second of each viewed camera."""
    max_upload_mb: Annotated[int, Field(ge=1)] = 2048
    """Maximum size of an uploaded file."""
    upload_retention_h: Positive = 24.0
    """Maximum age of an upload. It is deleted earlier when its job is done."""

    @property
    def address(self) -> str:
        """URL of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def at(self, host: str | None, port: int | None) -> WebSettings:
        """Return a copy with another host or port; None keeps the current value. Raises `ConfigError`."""
        changed = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
        try:
            return WebSettings.model_validate({**self.model_dump(), **changed})
        except ValidationError as error:
            raise ConfigError("\n".join(text for _, text in format_errors(error, WebSettings))) from None

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        if self.port and not self.token and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} needs a token (or token_file), generated with `openssl rand -hex 24`; "
                "without a token, use 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
