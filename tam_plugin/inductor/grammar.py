"""The grammar: a seeded generator of labelled queries from the YAML files in ``corpus/``.

``corpus/lexicon.yaml`` maps a name to a list of phrases; every other file holds the templates of one task type::

    label: 1                     # the task type of the file, 1-8
    groups:
      - options: color           # a name in the lexicon, or a list of texts; may be absent
        label2: 2                # a second valid label; may be absent
        needs_options: true      # the options decide the type, so they are never left out; may be absent
        weight: 2                # how often the group is drawn, against 1 for the others; may be absent
        templates: |
          [what|which] colou?r is {thing} in the video
          ...

In a template ``[a|b|]`` takes one of the alternatives (nesting is allowed), ``{name}`` a phrase of the lexicon,
``{name.1}`` the same phrase at each mention, and ``{act:ing}``, ``{act:s}``, ``{act:ed}`` inflect the phrase's first
word. Phrases may hold alternatives and slots of their own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tam_plugin.errors import ConfigError
from tam_plugin.files import read_yaml

CORPUS_FOLDER = Path(__file__).with_name("corpus")
_LEXICON_FILE = "lexicon.yaml"
_SLOT = re.compile(r"\{(\w+)(?:\.(\d+))?(?::(s|ing|ed))?\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_VOWELS = "aeiou"
_DOUBLED_VERBS = """
put cut sit run hit stop grab drop clap step swim get pat slip chop skip drag hug spin pet trim dip stir rub flip
tap wrap plug scrub knit zip jog nod wag mop sip plan pin strip throb shut unplug
"""
_DOUBLED = frozenset(_DOUBLED_VERBS.split())


@dataclass(frozen=True)
class WrittenQuery:
    """One query of the corpus with its label (1-8), a second valid label or None, and options or None."""

    question: str
    label: int
    label2: int | None = None
    options: tuple[str, ...] | None = None
    needs_options: bool = False


@dataclass(frozen=True)
class _Group:
    templates: tuple[str, ...]
    label: int
    label2: int | None
    options: tuple[str, ...]
    weight: float
    needs_options: bool


@dataclass
class Corpus:
    """All templates and the lexicon; see :meth:`load` and :meth:`sample`."""

    lexicon: dict[str, list[str]]
    groups: list[_Group] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path = CORPUS_FOLDER) -> Corpus:
        """Read every YAML file of a corpus folder.

        Raises:
            ConfigError: a file is missing or malformed, or a template names a slot that the lexicon lacks.
        """
        lexicon = _read_yaml(folder / _LEXICON_FILE)
        corpus = cls({name: [str(p) for p in phrases] for name, phrases in lexicon.items()})
        for path in sorted(folder.glob("*.yaml")):
            if path.name != _LEXICON_FILE:
                content = _read_yaml(path)
                for group in content.get("groups", []):
                    corpus.groups.append(_read_group(group, content.get("label"), path))
        corpus._check_slots()
        return corpus

    @property
    def num_templates(self) -> int:
        """How many templates there are, each counted once."""
        return sum(len(group.templates) for group in self.groups)

    def split(self, held_out: float, rng: random.Random) -> tuple[Corpus, Corpus]:
        """Two corpora over the same lexicon: one without, one with only a random share of each group's templates."""
        kept, held = Corpus(self.lexicon), Corpus(self.lexicon)
        for group in self.groups:
            templates = rng.sample(group.templates, len(group.templates))
            cut = round(len(templates) * held_out)
            kept.groups.append(replace(group, templates=tuple(templates[cut:])))
            if cut:
                held.groups.append(replace(group, templates=tuple(templates[:cut])))
        return kept, held

    def sample(self, label: int, count: int, rng: random.Random) -> Iterator[WrittenQuery]:
        """Draw ``count`` queries of one label, distinct as far as the templates allow."""
        groups = [group for group in self.groups if group.label == label]
        weights = [group.weight * len(group.templates) for group in groups]
        seen: set[str] = set()
        for _ in range(count):
            for _attempt in range(5):
                group = rng.choices(groups, weights)[0]
                question = self.realise(rng.choice(group.templates), rng)
                if question not in seen:
                    break
            seen.add(question)
            yield WrittenQuery(question, label, group.label2, self._options(group, rng), group.needs_options)

    def realise(self, template: str, rng: random.Random) -> str:
        """One text of a template."""
        bound: dict[str, str] = {}
        text = template
        for _depth in range(40):
            if "[" in text:
                text = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text, count=1)
            elif "{" in text:
                text = _SLOT.sub(lambda match: self._fill(match, bound, rng), text, count=1)
            else:
                break
        return _tidy(text)

    def _fill(self, match: re.Match[str], bound: dict[str, str], rng: random.Random) -> str:
        name, number, form = match.groups()
        key = f"{name}.{number}"
        if number is None or key not in bound:
            bound[key] = self.realise(rng.choice(self.lexicon[name]), rng)
        phrase = bound[key]
        return inflect(phrase, form) if form else phrase

    def _options(self, group: _Group, rng: random.Random) -> tuple[str, ...] | None:
        if not group.options:
            return None
        source = rng.choice(group.options)
        count = rng.choice((2, 3, 4, 4, 4, 5))
        options: list[str] = []
        for _attempt in range(4 * count):
            option = self.realise(source, rng)
            if option not in options and len(options) < count:
                options.append(option)
        return tuple(options)

    def _check_slots(self) -> None:
        texts = [t for group in self.groups for t in (*group.templates, *group.options)]
        for text in texts + [p for phrases in self.lexicon.values() for p in phrases]:
            for match in _SLOT.finditer(text):
                if match.group(1) not in self.lexicon:
                    raise ConfigError(f"the corpus text {text!r} names {match.group(1)!r}, which the lexicon lacks")


def inflect(phrase: str, form: str) -> str:
    """Inflect the first word of a verb phrase: ``s`` (puts), ``ing`` (putting) or ``ed`` (put, cooked)."""
    verb, space, rest = phrase.partition(" ")
    return _inflect_verb(verb, form) + space + rest


def _inflect_verb(verb: str, form: str) -> str:
    doubled = verb + (verb[-1] if verb in _DOUBLED else "")
    if form == "s":
        stem = verb[:-1] + "i" if _consonant_y(verb) else verb
        return stem + ("es" if stem.endswith(("i", "s", "sh", "ch", "x", "z", "o")) else "s")
    if form == "ing":
        if verb.endswith("ie"):
            return verb[:-2] + "ying"
        return (verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else doubled) + "ing"
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb.endswith("e"):
        return verb + "d"
    return (verb[:-1] + "i" if _consonant_y(verb) else doubled) + "ed"


def _consonant_y(verb: str) -> bool:
    return len(verb) > 1 and verb[-1] == "y" and verb[-2] not in _VOWELS


_IRREGULAR_VERBS = """
put:put cut:cut sit:sat run:ran hit:hit get:got swim:swam take:took give:gave hold:held throw:threw write:wrote
drive:drove ride:rode fall:fell stand:stood catch:caught bring:brought leave:left drink:drank eat:ate build:built
draw:drew sing:sang feed:fed fold:folded blow:blew go:went do:did make:made shake:shook bend:bent speak:spoke
tell:told buy:bought sell:sold find:found lose:lost win:won pay:paid send:sent set:set shut:shut spin:spun
sweep:swept teach:taught tear:tore wear:wore read:read meet:met lead:led lie:lay slide:slid break:broke come:came
fly:flew hang:hung light:lit say:said see:saw shoot:shot strike:struck swing:swung knit:knitted choose:chose
begin:began grind:ground dig:dug hide:hid keep:kept bite:bit
"""
_IRREGULAR = dict(pair.split(":") for pair in _IRREGULAR_VERBS.split())


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.?!;:])", r"\1", text)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_yaml(path, what="corpus")
    if not isinstance(content, dict):
        raise ConfigError(f"the corpus file {path.name} must hold a mapping, found {type(content).__name__}")
    return content


def _read_group(group: dict[str, Any], label: Any, path: Path) -> _Group:
    label = group.get("label", label)
    label2 = group.get("label2")
    for name, value in (("label", label), ("label2", label2)):
        if value not in (*range(1, 9), *((None,) if name == "label2" else ())):
            raise ConfigError(f"{path.name}: {name} must be 1-8, got {value!r}")
    templates = tuple(line.strip() for line in str(group.get("templates", "")).splitlines() if line.strip())
    if not templates:
        raise ConfigError(f"{path.name}: a group has no templates")
    options = group.get("options") or []
    sources = [f"{{{options}}}"] if isinstance(options, str) else [str(option) for option in options]
    return _Group(
        templates, label, label2, tuple(sources), float(group.get("weight", 1)), bool(group.get("needs_options"))
    )
