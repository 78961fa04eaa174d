"""Watching a session: the address at which a person sees what its browser shows, where the provider has one."""

from __future__ import annotations

from tabkeeper.errors import ProviderRequestError
from tabkeeper.providers.base import Provider, Watchable


async def live_view(provider: Provider, provider_session_id: str) -> str:
    """Return the address of a session's live view. Who has it needs no key: a secret.

    Raises:
        ProviderRequestError: the provider has no live view.
        ProviderError: it could not be asked, or knows no such session.
    """
    if not (provider.capabilities.live_view and isinstance(provider, Watchable)):
        raise ProviderRequestError(
            provider.name, "its sessions cannot be watched: it offers no live view; take screenshots instead"
        )
    return await provider.live_view(provider_session_id)
