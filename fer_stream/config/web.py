"""The web page and the HTTP API: who may see them, and what they show."""

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

from fer_stream.config.errors import complaints
from fer_stream.config.settings import Positive, Settings
from fer_stream.errors import ConfigError

_TOKEN_LENGTH = 16

Previews = Annotated[
    Literal["on", "blur", "off"],
    # YAML takes a bare `on` for true and `off` for false.
    BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value),
]


def _long_enough(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value()) < _TOKEN_LENGTH:
        raise ValueError(f"a token has at least {_TOKEN_LENGTH} characters: make one with `openssl rand -hex 24`")
    return token


Token = Annotated[SecretStr, AfterValidator(_long_enough), Field(json_schema_extra={"minLength": _TOKEN_LENGTH})]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", to_lower=True)]


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("expected an address or a network, as in 192.0.2.1 or 10.244.0.0/16") from None


Network = Annotated[str, AfterValidator(_network)]


class WebSettings(Settings):
    """The web page and the HTTP API."""

    host: str = "127.0.0.1"
    """The address to listen on. Any but a loopback address needs a `token`."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = 8080
    """null is no page at all."""
    token: Token | None = None
    """What everybody must show who wants more than the health of the process, as a bearer token or as the password of
    any user. Make one with `openssl rand -hex 24`."""
    allowed_hosts: tuple[HostName, ...] = ()
    """The names by which browsers may reach the page, besides localhost and plain addresses: else any website could
    have its own name lead here (DNS rebinding)."""
    trusted_proxies: tuple[Network, ...] = ()
    """The addresses or networks of your own proxies, which are believed when they tell for whom they ask
    (X-Forwarded-For): wrong tokens are counted by address. Nobody else is."""
    max_streams: Annotated[int, Field(ge=1, le=1024)] = 32
    """So many live streams are served at once, each of which keeps a thread busy."""
    previews: Previews = "on"
    """Whether pictures of the cameras are shown; `blur`: with the faces that are found blurred. They are made only
    while somebody looks, and kept nowhere."""
    preview_fps: Annotated[float, Field(gt=0, le=10)] = 3.0
    """So many pictures a second of each camera that is looked at."""
    max_upload_mb: Annotated[int, Field(ge=1)] = 2048
    """No larger video is taken."""
    upload_retention_h: Positive = 24.0
    """An upload goes when its job is done, and in any case after so long: it shows people."""

    @property
    def address(self) -> str:
        """Where the page is, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def at(self, host: str | None, port: int | None) -> WebSettings:
        """These settings with another host or port; None changes nothing. Raises `ConfigError` where it is wrong."""
        changed = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
        try:
            return WebSettings.model_validate({**self.model_dump(), **changed})
        except ValidationError as error:
            raise ConfigError("\n".join(said for _, said in complaints(error, WebSettings))) from None

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> Self:
        if self.port and not self.token and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} lets others in: give a token (or token_file), made with `openssl rand "
                f"-hex 24`, or keep to 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Does this address lead to this machine alone?"""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
