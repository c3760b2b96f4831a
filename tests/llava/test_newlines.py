"""Newline tokens stand where LLaVA-NeXT's own code puts them."""

from __future__ import annotations

import pytest
import torch

from tam_plugin.vision import with_newlines
from tests.llava.budget_model import tam_model

pytestmark = pytest.mark.usefixtures("llava")


@pytest.mark.parametrize(("position", "method"), [("grid", "add_token_per_grid"), ("frame", "add_token_per_frame")])
def test_rows_and_frames_end_as_in_the_host(position, method):
    model = tam_model(position)
    newline = model.get_model().image_newline
    tokens = torch.rand(3, 16, len(newline), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = getattr(model, method)(tokens)
        found = with_newlines(tokens, newline, position)
    assert torch.equal(found, expected.reshape(-1, len(newline)))
