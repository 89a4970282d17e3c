"""The language model that may put explanations in other words, if the operator has one."""

from __future__ import annotations

from agent.workflow.rephrase import ChatRephraser, RephraseError
from api.errors import SettingsError
from api.settings import Settings, read_rephrase_key


def rephraser_of(settings: Settings) -> ChatRephraser | None:
    """The configured endpoint; None, as by default, where there is none.

    Raises:
        SettingsError: if only one of address and model is given, or the address is not private.
    """
    url, model = settings.rephrase_url, settings.rephrase_model
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise SettingsError(
            "Give both GREENBOARD_REPHRASE_URL and GREENBOARD_REPHRASE_MODEL, or neither."
        )
    try:
        return ChatRephraser(url, model=model, key=read_rephrase_key())
    except RephraseError as error:
        raise SettingsError(f"GREENBOARD_REPHRASE_URL: {error}") from error
