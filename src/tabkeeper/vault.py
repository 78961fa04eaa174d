"""Encryption at rest: what is secret is sealed here before it is stored, and opened when it is needed.

Keys come from the configuration by reference and are never stored. The first one seals, every one opens, so a key is
changed by putting a new one in front (docs/security.md).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from tabkeeper.errors import ConfigError, SealedError

HOW_TO_GET_A_KEY = (
    "run `tabkeeper db new-key`, keep what it prints in the environment variable TABKEEPER_KEY, and set "
    'security.keys = ["env:TABKEEPER_KEY"]'
)
_SALT_BYTES = 16
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}


class Vault:
    """Seals and opens text with the keys of one configuration. Its repr, and its errors, show no key.

    Args:
        keys: Fernet keys (44 characters each); the first seals, all open. None at all is allowed: then nothing can
            be sealed, and whoever needs it is told so.

    Raises:
        ConfigError: a key has the wrong form.

    >>> vault = Vault([new_key()])
    >>> vault.open(vault.seal("wss://user:key@host"))
    'wss://user:key@host'
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        made = []
        for number, key in enumerate(keys):
            try:
                made.append(Fernet(key.strip().encode()))
            except ValueError:
                raise ConfigError(
                    f"security.keys.{number}: it is not a key of 44 characters as `tabkeeper db new-key` prints them"
                ) from None
        self._fernet = MultiFernet(made) if made else None

    def __repr__(self) -> str:
        return f"<Vault {'with' if self.has_keys else 'without'} keys>"

    @property
    def has_keys(self) -> bool:
        """Whether anything can be sealed."""
        return self._fernet is not None

    def require(self, what: str) -> None:
        """See to it that there are keys.

        Args:
            what: what would be stored, as the beginning of the message.

        Raises:
            ConfigError: there are none.
        """
        if self._fernet is None:
            raise ConfigError(f"{what} only encrypted, and no key is set: {HOW_TO_GET_A_KEY}")

    def seal(self, text: str) -> str:
        """Return `text` encrypted and signed, as plain ASCII.

        Raises:
            ConfigError: there are no keys.
        """
        self.require("secrets are stored")
        assert self._fernet is not None
        return self._fernet.encrypt(text.encode()).decode()

    def seal_if_possible(self, text: str) -> str | None:
        """Return `text` sealed, or None without keys: then it is not stored at all."""
        return self.seal(text) if self.has_keys else None

    def open(self, sealed: str) -> str:
        """Return what was sealed.

        Raises:
            ConfigError: there are no keys.
            SealedError: none of the keys fits, or somebody changed it.
        """
        self.require("what is stored can be read again")
        assert self._fernet is not None
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise SealedError(
                "something stored cannot be opened with any of security.keys, or it was changed; put the key it "
                "was stored with back, after the new one"
            ) from None

    def reseal(self, sealed: str) -> str:
        """Return it sealed with the first key, without its being looked at.

        Raises:
            ConfigError, SealedError: as `open`.
        """
        return self.seal(self.open(sealed))


def new_key() -> str:
    """Make a key, from the system's source of chance."""
    return Fernet.generate_key().decode()


def passphrase_vault(passphrase: str, salt: str) -> Vault:
    """Return a vault whose key is derived from a passphrase (scrypt, 32 MB), for files that leave the machine."""
    raw = Scrypt(salt=base64.urlsafe_b64decode(salt), length=32, **_SCRYPT).derive(passphrase.encode())
    return Vault([base64.urlsafe_b64encode(raw).decode()])


def new_salt() -> str:
    """Make a salt for `passphrase_vault`; it is no secret and is kept beside what is sealed."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_SALT_BYTES)).decode()


def keyed_hash(key: str, *parts: str) -> str:
    """Return HMAC-SHA-256 of `parts` as 32 hex digits: the same parts and key, the same digits; nothing leads back."""
    message = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
    return hmac.new(key.encode(), message, hashlib.sha256).hexdigest()[:32]
