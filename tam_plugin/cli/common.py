"""What several commands share: the video-and-question arguments, and the decision they lead to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import InputError
from tam_plugin.video.info import MAX_DAMAGED

if TYPE_CHECKING:
    from tam_plugin.deciding import Decider, Decision, Sampling
    from tam_plugin.video import SampledVideo, Video


def add_question_arguments(parser: argparse.ArgumentParser) -> None:
    """``VIDEO --query Q`` and what tunes the decision."""
    parser.add_argument("video", metavar="VIDEO", help="a video file, or a directory of images in natural order")
    parser.add_argument("--query", required=True, metavar="Q", help="the question; - reads it from standard input")
    parser.add_argument("--options", nargs="+", metavar="TEXT", help="answer options of a multiple-choice question")
    parser.add_argument(
        "--policy",
        metavar="POLICY",
        help="a budget policy file, or fixed:FRAMES:STRIDE (default: the model's, or the shipped one)",
    )
    parser.add_argument("--inductor", metavar="PATH", help="Inductor checkpoint (default: the embedded one)")
    parser.add_argument(
        "--backend", default="auto", help="video reader: auto, pyav, decord or torchcodec (default: auto)"
    )
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help="how frames are chosen: uniform, or keyframe, which is faster (default: uniform)",
    )
    parser.add_argument("--snap-to-keyframes", action="store_true", help="the same as --sampler keyframe")
    parser.add_argument(
        "--max-damaged",
        type=float,
        default=MAX_DAMAGED,
        metavar="SHARE",
        help="share of the frames that may be damaged before the video is refused (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass(frozen=True)
class Question:
    """A query about an opened video, both looked at and found usable.

    Attributes:
        query: the question.
        options: answer options, if it has any.
        video: the video, open.
        sampling: how frames are to be taken.
    """

    query: str
    options: list[str] | None
    video: Video
    sampling: Sampling

    def decided_by(self, decider: Decider, *, output_tokens: int = 0) -> tuple[Decision, SampledVideo]:
        """Decide the budget and sample its frames.

        Args:
            decider: decides.
            output_tokens: length of the answer, at most.

        Raises:
            TamError: the Inductor cannot be loaded, or the frames cannot be read.
        """
        from tam_plugin.deciding import compose_question, sample

        info = self.video.info
        decision = decider.decide(
            self.query,
            info.duration_s,
            video_frames=info.num_frames,
            options=self.options,
            text=compose_question(self.query, options=self.options),
            output_tokens=output_tokens,
        )
        return sample(self.video, decision, self.sampling)


@contextmanager
def question(args: argparse.Namespace, *, size: int) -> Iterator[Question]:
    """Read the query, check the reader's name, open the video: all that can be refused before a model loads.

    Args:
        args: of the command.
        size: pixels per side of the frames to be taken, at most.

    Raises:
        TamError: the query, the reader or the video cannot be used.
    """
    from tam_plugin.deciding import Sampling
    from tam_plugin.inductor.text import clean_options, prepare_query
    from tam_plugin.video import open_video
    from tam_plugin.video.reader import check_backend

    query = _read_query(args.query)
    prepare_query(query)
    if not 0 <= args.max_damaged <= 1:
        raise InputError(f"--max-damaged {args.max_damaged}: expected a share between 0 and 1")
    clean_options(args.options)
    check_backend(args.backend)
    sampling = Sampling(sampler=_sampler(args), backend=args.backend, size=size, max_damaged=args.max_damaged)
    with open_video(args.video, image_fps=sampling.image_fps) as video:
        yield Question(query, args.options, video, sampling)


def _sampler(args: argparse.Namespace) -> str:
    """The name of the sampler asked for.

    Raises:
        InputError: there is no such sampler, or the two options contradict each other.
    """
    from tam_plugin.video.samplers import KEYFRAME, UNIFORM, sampler_named

    if args.snap_to_keyframes and args.sampler not in (None, KEYFRAME):
        raise InputError(
            f"--sampler {args.sampler!r}: --snap-to-keyframes means --sampler {KEYFRAME}; give one of them"
        )
    if args.sampler is not None:
        return sampler_named(args.sampler).name
    return KEYFRAME if args.snap_to_keyframes else UNIFORM


def _read_query(query: str) -> str:
    """The query itself, or standard input for ``-``; both must be UTF-8."""
    try:
        if query == "-":
            raw = getattr(sys.stdin, "buffer", sys.stdin)
            if raw is None:
                raise InputError("--query -: standard input is closed")
            text = raw.read()
            return text.decode("utf-8") if isinstance(text, bytes) else text
        return query.encode("utf-8").decode("utf-8")
    except UnicodeError as error:
        raise InputError(f"the query is not valid UTF-8: {error}") from error


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse a contact sheet or report that could not be written, before anything long is done.

    Raises:
        InputError: a path is empty, no regular file or the video itself, its folder is not there, or both are one.
    """
    outputs = {"--contact-sheet": (args.contact_sheet, "a PNG"), "--report": (getattr(args, "report", None), "an HTML")}
    taken: dict[str, str] = {}
    for option, (path, kind) in outputs.items():
        if path is None:
            continue
        if not path.strip() or (os.path.exists(path) and not os.path.isfile(path)):
            raise InputError(f"{option} {path!r}: expected the name of {kind} file")
        if not os.path.isdir(Path(path).absolute().parent):
            raise InputError(f"{option} {path!r}: there is no folder {str(Path(path).parent)!r}")
        if os.path.exists(path) and os.path.exists(args.video) and os.path.samefile(path, args.video):
            raise InputError(f"{option} {path!r}: this is the video; expected the name of {kind} file")
        other = taken.setdefault(os.path.realpath(path), option)
        if other != option:
            raise InputError(f"{option} {path!r}: {other} writes this file already; expected another name")


def report(decision: Decision, video: SampledVideo) -> dict[str, Any]:
    """The decision as plain values; ``num_frames`` and tokens are those of the frames really sampled."""
    budget = decision.budget
    assert decision.distribution is not None  # there was a question
    return {
        "task": decision.distribution.decided_task.label,
        "probabilities": decision.distribution.as_dict(),
        "confidence": decision.distribution.decided_confidence,
        "duration_s": decision.duration_s,
        "num_frames": budget.num_frames,
        "pool_stride": budget.pool_stride,
        "tokens_per_frame": budget.tokens_per_frame,
        "visual_tokens": budget.visual_tokens,
        "fallback": budget.fallback,
        "timestamps_s": [round(float(t), 6) for t in video.timestamps_s],
        "sampler": video.sampler,
        "damaged_frames": list(video.damaged_frames),
        **({"extension": budget.extension} if budget.extension else {}),
    }


def _of_damage(damaged: list[int]) -> str | None:
    if not damaged:
        return None
    named = ", ".join(map(str, damaged[:8])) + (", ..." if len(damaged) > 8 else "")
    return f"damaged     {len(damaged)} of the requested frames ({named}); intact frames nearby stand in for them"


def describe(values: dict[str, Any]) -> str:
    """The decision in human-readable form."""
    times = values["timestamps_s"]
    span = f"{times[0]:.2f} s" if len(times) == 1 else f"{times[0]:.2f} s to {times[-1]:.2f} s"
    fallback, extension = values["fallback"], values.get("extension")
    return "\n".join(
        [
            f"task        {values['task']} ({values['confidence']:.0%} sure)",
            *([f"extension   {extension}: its rule decides"] if extension else []),
            f"video       {values['duration_s']:.2f} s",
            f"budget      {values['num_frames']} frames at stride {values['pool_stride']}: "
            f"{values['tokens_per_frame']} tokens per frame, {values['visual_tokens']} in all",
            f"frames at   {span}",
            *([damage] if (damage := _of_damage(values["damaged_frames"])) else []),
            *([f"fallback    {fallback}"] if fallback else []),
        ]
    )
