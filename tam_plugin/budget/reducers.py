"""Token reducers, which drop or merge tokens of a video after the projector (App. D.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tam_plugin import addons
from tam_plugin.errors import ConfigError

if TYPE_CHECKING:
    import torch


class TokenReducer(Protocol):
    """Reduces the tokens of one video, and tells beforehand how many it leaves, so that they can be spent on frames.

    It is named by ``ProjectorConfig.reducer``; both hosts call it in :func:`tam_plugin.vision.tokens.frames_to_tokens`.
    """

    def shape(self, num_frames: int, tokens_per_frame: int) -> tuple[int, int]:
        """What is left of ``[T, P, D]``: T' and P'.

        Args:
            num_frames: T; 0 leaves 0, and more frames never leave fewer tokens.
            tokens_per_frame: P. With newline position ``grid`` P' must be a square number, since each row of a frame
                ends with a newline token.
        """

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[T, P, D]`` → ``[T', P', D]``; differentiable if the model is to be trained with it."""


_REDUCERS: dict[str, TokenReducer] = {}


def register_reducer(name: str, reducer: TokenReducer) -> None:
    """Make a token reducer known by a name.

    Raises:
        ConfigError: the name is already taken.
    """
    if _REDUCERS.setdefault(name, reducer) is not reducer:
        raise ConfigError(f"token reducer {name!r} is registered already: choose another name")


def unregister_reducer(name: str) -> None:
    """Forget a token reducer."""
    _REDUCERS.pop(name, None)


def reducer_named(name: str) -> TokenReducer:
    """The token reducer of a name.

    Raises:
        ConfigError: there is none; the message lists those that are.
    """
    reducer = addons.find(_REDUCERS, name)
    if reducer is None:
        known = f"expected one of {', '.join(sorted(_REDUCERS))}" if _REDUCERS else "none is registered"
        raise ConfigError(f"ProjectorConfig.reducer = {name!r}: {known}")
    return reducer
