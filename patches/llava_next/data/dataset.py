"""The host's training set with frames and resolution by each sample's question."""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
from contextlib import nullcontext
from typing import Any

from torch.utils.data import Dataset

from tam_plugin.budget import VisualBudget
from tam_plugin.config import InstructionConfig
from tam_plugin.deciding import Sampling, take
from tam_plugin.errors import ConfigError, InputError, MissingDependencyError
from tam_plugin.patches.llava_next.data.bad_samples import BadSamples, TooManyBadSamplesError
from tam_plugin.patches.llava_next.data.budgets import BudgetPlanner
from tam_plugin.patches.llava_next.data.marks import (
    WordsTokenizer,
    arranged,
    check_places,
    check_version,
    own_marks,
    spell_marks,
)
from tam_plugin.patches.llava_next.data.modality import video as video_modality
from tam_plugin.patches.llava_next.data.plans import planned_lengths
from tam_plugin.patches.llava_next.data.rows import places_of_malformed, problem_of, word_counts
from tam_plugin.patches.llava_next.data.sampling import (
    FRAME_FOLDER_FPS,
    path_for_host,
    reading,
    with_instruction,
)
from tam_plugin.plans.keys import first_question, key_of_row
from tam_plugin.video import SampledVideo, Video, open_video

_SAMPLING = Sampling(image_fps=FRAME_FOLDER_FPS)

_FATAL = (ConfigError, MissingDependencyError, TooManyBadSamplesError, MemoryError)
"""Errors that would occur with any other sample too."""


class TamDataset(Dataset):
    """Stands in for the host's ``LazySupervisedDataset``: same items, same attributes, but videos by their budget.

    The host makes every item; for a video it is shown a set of that one sample, with its instruction, while its video
    reader gives back the frames taken here. So nothing of the host's set is changed, and its way of taking the next
    sample for a bad one finds none.

    Args:
        host: the host's dataset.
        planner: decides budgets.
        instruction: what the model is told of a video.
        bad_samples: keeps count of what cannot be read.
    """

    def __init__(
        self, host: Any, planner: BudgetPlanner, instruction: InstructionConfig, bad_samples: BadSamples
    ) -> None:
        self.host = host
        self.planner = planner
        self.instruction = instruction
        self.bad_samples = bad_samples
        self._places = places_of_malformed(host)

    def __len__(self) -> int:
        return len(self.host)

    def __getattr__(self, name: str) -> Any:
        if name == "host" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.host, name)

    @property
    def modality_lengths(self) -> list[int]:
        """The host's; with plans, planned visual tokens are added, so that batches of like length are alike indeed."""
        plans = self.planner.plans
        words = word_counts(self.host, "modality_lengths")
        return words if plans is None else planned_lengths(self.planner, plans, self.host.list_data_dict, words)

    @property
    def lengths(self) -> list[int]:
        """The host's; with plans, :attr:`modality_lengths` without its signs."""
        if self.planner.plans is None:
            return word_counts(self.host, "lengths")
        return [abs(n) for n in self.modality_lengths]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The host's item; for a sample that cannot be used, the next one that can, and a line on stderr.

        Raises:
            TooManyBadSamplesError: too many cannot be used.
        """
        index = int(index)
        for step in range(len(self)):
            at = (index + step) % len(self)
            try:
                return self.item(at)
            except _FATAL:
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                self.bad_samples.add(at, self._name(at), " ".join(reason.split()))
        raise TooManyBadSamplesError(f"none of {len(self)} training samples can be used")

    def item(self, index: int) -> dict[str, Any]:
        """One item, or the error that its sample makes."""
        record = self.host.list_data_dict[index]
        if problem := problem_of(record):
            raise InputError(problem)
        if "video" not in record or "image" in record:
            return self._by_host({"id": index, **record})
        path = self._path(record)
        sample_id = record.get("id", index)
        question = first_question(record)
        key = key_of_row(record).key if self.planner.plans is not None else None
        with open_video(path, image_fps=_SAMPLING.image_fps) as opened:
            budget = self.planner.budget(index, sample_id, question, lambda: opened.info, key)
            item, budget, video = self._build(index, record, question, opened, budget)
            if self._tokens(item, budget) > self.planner.max_tokens:
                fitted = self.planner.fitted(budget, *self._text_tokens(item, video))
                item, budget, _ = self._build(index, record, question, opened, fitted)
            if self._tokens(item, budget) > self.planner.max_tokens:
                raise InputError(
                    f"{self._tokens(item, budget)} tokens with {budget.num_frames} frames: expected at most "
                    f"{self.planner.max_tokens}; raise --model_max_length"
                )
        return item

    def _tokens(self, item: dict[str, Any], budget: VisualBudget) -> int:
        """Tokens that the language model sees: the image token gives way to the video's."""
        return len(item["input_ids"]) - 1 + budget.visual_tokens

    def _text_tokens(self, item: dict[str, Any], video: SampledVideo) -> tuple[int, int]:
        """Tokens of the text without the list of times, and the most that one time of the list takes."""
        text = len(item["input_ids"]) - 1
        if not self._instruction.time:
            return text, 0
        times = [f"{t:.2f}s," for t in video.timestamps_s]
        count = [len(ids) for ids in self.host.tokenizer(times, add_special_tokens=False)["input_ids"]]
        return text - sum(count), max(count)

    @property
    def _instruction(self) -> InstructionConfig:
        """What the prompt tells of a video: the model's setting, or the script's ``--add_time_instruction``."""
        time = self.instruction.time or bool(getattr(self.host.data_args, "add_time_instruction", False))
        return dataclasses.replace(self.instruction, time=time)

    def _build(
        self, index: int, record: dict[str, Any], question: str, opened: Video, budget: VisualBudget
    ) -> tuple[dict[str, Any], VisualBudget, SampledVideo]:
        video = take(opened, budget.num_frames, _SAMPLING, query=question)
        if video.damaged_frames:
            self.bad_samples.damaged(index, opened.path, video.damaged_frames)
        budget = self.planner.layout.changed(budget, num_frames=len(video))
        shown = {
            "id": index,
            **record,
            "video": path_for_host(opened.path),
            "conversations": with_instruction(record["conversations"], budget, video, self._instruction),
        }
        item = self._by_host(shown, video)
        pixels = item["image"][0][0]
        item["image"] = [(pixels, (video.info.width, video.info.height), video_modality(budget))]
        return item, budget, video

    def _by_host(self, record: dict[str, Any], video: SampledVideo | None = None) -> dict[str, Any]:
        """The host's item of a row, whose words are text whatever they spell."""
        view = copy.copy(self.host)
        view.data_args = copy.copy(self.host.data_args)
        if video is not None:
            view.data_args.add_time_instruction = False  # it is in the conversation already
        own = own_marks(record)
        if spell_marks(view.tokenizer, record["conversations"], own):
            record = self._guard(view, record, own)
        view.list_data_dict = _OneSample([record])
        try:
            with reading(video) if video is not None else nullcontext():
                item = view._get_item(0)
        except _NextSampleError as error:
            raise error.__context__ or error from None
        check_places(item["input_ids"], own, is_video=video is not None)
        return item

    def _guard(self, view: Any, record: dict[str, Any], own: int) -> dict[str, Any]:
        """The record as ``view`` is to read it, with a tokenizer that tells its own marks from words."""
        from llava import conversation

        check_version(conversation.default_conversation.version, sys.modules[type(self.host).__module__])
        view.tokenizer = WordsTokenizer(view.tokenizer, own)
        if own and view.data_args.is_multimodal:
            view.data_args.is_multimodal = False  # the host's step that moves marks about, done here instead
            turns = arranged(
                record["conversations"],
                own,
                use_im_start_end=bool(getattr(view.data_args, "mm_use_im_start_end", False)),
            )
            record = {**record, "conversations": turns}
        return record

    def _path(self, record: dict[str, Any]) -> str:
        return os.path.join(self.host.data_args.video_folder or "", record["video"])

    def _name(self, index: int) -> str:
        if index in self._places:
            return self._places[index]
        record = self.host.list_data_dict[index]
        if not isinstance(record, dict):
            return f"row {index}"
        if "video" in record:
            return self._path(record)
        return str(record.get("image", f"id {record.get('id', index)}"))


class _NextSampleError(Exception):
    """The host moved on to the next sample while it handled an error."""


class _OneSample(list):
    """A list of one; asking for another says that the host gave the one up."""

    def __getitem__(self, index: Any) -> Any:
        if index != 0:
            raise _NextSampleError
        return super().__getitem__(index)
