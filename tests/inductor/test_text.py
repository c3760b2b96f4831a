"""The input text: instructions and placeholders out, options aside, bad values refused by name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.errors import InputError
from tam_plugin.inductor import build_input, prepare_query
from tam_plugin.inductor.text import MAX_OPTIONS, MAX_QUERY_CHARS

COLOR = "What color is the car?"


@pytest.mark.parametrize(
    "query",
    [
        COLOR,
        f"<image>\n{COLOR}",
        f"<video> {COLOR}\nAnswer the question using a single word or phrase.",
        f"{COLOR} Answer with the option's letter from the given choices directly.",
        f"{COLOR}\nPlease respond with only the letter of the correct answer.",
        f"Select the best answer to the following multiple-choice question based on the video. {COLOR}",
        f"Question: {COLOR}\nPlease provide your answer by stating the letter followed by the full option.",
        f"{COLOR} Answer using short words.",
        f"{COLOR}\nThe best answer is:",
        f"{COLOR} Please answer briefly: ",
        "  What   color\tis the\ncar?  ",
    ],
)
def test_only_the_question_is_left(query: str) -> None:
    assert prepare_query(query).text == COLOR


@pytest.mark.parametrize(
    "query",
    [
        "What answer does the man give directly?",
        "Select a title for the video",
        "Answer in which order the events happen?",
        "Give the corresponding position when it first appears.",
        "Describe the video in detail.",
        "What is the answer written on the board?",
        "Choose the sentence that matches the video",
    ],
)
def test_a_request_about_the_video_is_kept(query: str) -> None:
    assert prepare_query(query).text == query


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("请用选项字母回答：他手里拿的是什么？", "他手里拿的是什么？"),
        ("请选择正确的答案。猫在哪里？", "猫在哪里？"),
        ("Elige la opción correcta. ¿Dónde está el gato?", "¿Dónde está el gato?"),
        ("一言で答えて。猫はどこ？", "猫はどこ？"),
        ("Antworte nur mit dem Buchstaben: Wo ist die Katze?", "Wo ist die Katze?"),
        ("Où est le chat ? Répondez par une seule lettre.", "Où est le chat ?"),
        ("Responda apenas com a letra. Onde está o gato?", "Onde está o gato?"),
        ("Ответь только буквой: где кот?", "где кот?"),
        ("고양이는 어디 있어요? 기호로만 답하세요.", "고양이는 어디 있어요?"),
        ("أجب بالحرف فقط: أين القطة؟", "أين القطة؟"),
        ("केवल अक्षर में उत्तर दें। बिल्ली कहाँ है?", "बिल्ली कहाँ है?"),
        ("Rispondi con una parola: dov'è il gatto?", "dov'è il gatto?"),
        ("Pregunta: ¿qué hace?", "¿qué hace?"),
        # requests about the video
        ("请选择最合适的标题", "请选择最合适的标题"),
        ("¿Qué responde el ministro?", "¿Qué responde el ministro?"),
        ("Wähle einen Titel für das Video", "Wähle einen Titel für das Video"),
        ("彼は何と答えましたか", "彼は何と答えましたか"),
    ],
)
def test_instructions_of_other_languages_are_left_out(query: str, asked: str) -> None:
    assert prepare_query(query).text == asked


def test_options_with_fullwidth_marks_are_options() -> None:
    prepared = prepare_query("他在做什么？\n选项：\nA. 跑步\nB、做饭\n（C）睡觉")
    assert (prepared.text, prepared.options) == ("他在做什么？", ("跑步", "做饭", "睡觉"))
    for letters in ("АБВ", "가나다", "أبج", "कखग"):
        lines = "\n".join(f"{letter}) x{n}" for n, letter in enumerate(letters))
        assert prepare_query(f"Why?\n{lines}").options == ("x0", "x1", "x2")
    assert prepare_query("Why?\n① run\n② walk").options == ("run", "walk")


def test_lettered_lines_become_options() -> None:
    prepared = prepare_query("What is he doing?\nOptions:\nA. Running.\n(B) Cooking a meal\nC) None: he left\nAnswer:")
    assert prepared.text == "What is he doing?"
    assert prepared.options == ("Running", "Cooking a meal", "None: he left")
    assert build_input(prepared) == "What is he doing? ; options: Running | Cooking a meal | None: he left"


def test_given_options_win_over_written_ones() -> None:
    query = "What is he doing?\nA. Running\nB. Cooking"
    assert build_input(query, options=["A. sleeping", "eating"]).endswith("; options: sleeping | eating")


def test_format_of_all_parts() -> None:
    text = build_input(COLOR, options=["red", "blue"], duration_s=17.5)
    assert text == "What color is the car? ; options: red | blue ; length: short"
    assert build_input(COLOR, duration_s=181) == "What color is the car? ; length: long"
    assert build_input(COLOR, options=["red"], duration_s=60, use_options=False, use_duration=False) == COLOR


def test_bounding_boxes_lose_their_numbers() -> None:
    assert prepare_query("Where is the dog [0.44, 0.53, 1, 0.66] now?").text == "Where is the dog [box] now?"


def test_a_megabyte_is_cut_with_a_notice() -> None:
    prepared = prepare_query("Why? " + "x" * 1_000_000 + " What color is it?")
    assert len(prepared.text) <= MAX_QUERY_CHARS + 1
    assert prepared.text.startswith("Why? xxx") and prepared.text.endswith("What color is it?")
    assert prepared.notice and "1000023 characters" in prepared.notice and "\n" not in prepared.notice


def test_at_the_limit_nothing_is_said() -> None:
    assert prepare_query("y" * MAX_QUERY_CHARS).notice is None


@pytest.mark.parametrize("query", ["", "   \n\t ", "<image>", "<image>\n<video>  ", " " * 1_000_000])
def test_an_empty_query_is_refused(query: str) -> None:
    with pytest.raises(InputError, match="empty"):
        prepare_query(query)


@pytest.mark.parametrize("query", [None, 3, b"What?", ["What?"]])
def test_a_query_that_is_not_text_is_refused(query: object) -> None:
    with pytest.raises(InputError, match=type(query).__name__):
        prepare_query(query)  # type: ignore[arg-type]


@pytest.mark.parametrize("duration", [0, 0.0, -3, math.nan, math.inf, -math.inf, "12", True])
def test_a_bad_duration_is_named(duration: object) -> None:
    with pytest.raises(InputError, match="duration_s") as caught:
        build_input(COLOR, duration_s=duration)  # type: ignore[arg-type]
    assert repr(duration) in str(caught.value)


@pytest.mark.parametrize("options", ["red, blue", ["red", 3], 5, {"A": "red"}])
def test_bad_options_are_refused(options: object) -> None:
    with pytest.raises(InputError, match="options must be a list of texts"):
        build_input(COLOR, options=options)  # type: ignore[arg-type]


def test_an_instruction_alone_is_kept() -> None:
    assert prepare_query("Answer using short words.").text == "Answer using short words."


@given(st.text(max_size=3000))
def test_any_text_gives_one_line_or_an_input_error(query: str) -> None:
    try:
        prepared = prepare_query(query)
    except InputError:
        return
    assert prepared.text and prepared.text == prepared.text.strip()
    assert len(prepared.text.splitlines()) == 1
    assert (prepared.notice is not None) == (len(query.strip()) > MAX_QUERY_CHARS)


@given(st.lists(st.text(max_size=400), max_size=40), st.floats(1e-3, 1e6))
def test_options_and_duration_only_add_to_the_question(options: list[str], duration_s: float) -> None:
    text = build_input(COLOR, options=options, duration_s=duration_s)
    assert text.startswith(COLOR) and text.rsplit("length: ", 1)[1] in ("short", "medium", "long")
    shown = [option for option in options[:MAX_OPTIONS] if option.strip(" .")]
    assert (" ; options: " in text) <= bool(shown)
    assert text.count("\n") == 0


@given(st.text(alphabet=st.characters(codec="ascii", categories=("L", "Nd", "Zs")), min_size=1, max_size=80))
def test_preparing_twice_changes_nothing(query: str) -> None:
    if query.strip():
        once = prepare_query(query).text
        assert prepare_query(once).text == once
