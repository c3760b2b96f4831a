"""``tam data tag``, ``paraphrase`` and ``translate`` against a server that answers, fails and limits."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import termios
from collections import Counter

import pytest

from tests.inductor_tagging.conftest import make_rows, read, write
from tests.inductor_tagging.server import FAULTS, ChatServer, label_of

ARGV = ("in.jsonl", "--out", "out.jsonl", "--model", "r1", "--retry-wait", "0.01")
ONE_OF_EACH = ("", " aloud", " apart", " two names", " no such name", " never right")


def expected(row: dict) -> dict:
    """The row as the server's rule labels it."""
    label = label_of(row["question"].split("[")[1].split("]")[0])
    return {**row, "label": label, "label2": label % 8 + 1 if label % 2 else None, "tagger": "r1"}


def test_tagged_rows_in_input_order(tmp_path, tam):
    rows = make_rows(30, ONE_OF_EACH)
    rows[3]["split"] = {"carried": ["along"]}
    write(tmp_path / "in.jsonl", rows)
    with ChatServer() as server:
        code, err = tam("tag", *ARGV, "--base-url", server.url, "--temperature", "0.6", "--max-tokens", "900")
        assert code == 0, err
        asked = Counter(server.asked)
        assert {body["model"] for body in server.bodies} == {"r1"}
        assert {(body["temperature"], body["max_tokens"]) for body in server.bodies} == {(0.6, 900)}
        system = server.bodies[0]["messages"][0]["content"]
    assert read(tmp_path / "out.jsonl") == [expected(row) for row in rows if "never" not in row["question"]]
    aside = read(tmp_path / "out.jsonl.rejected.jsonl")
    assert [{k: v for k, v in row.items() if k != "reason"} for row in aside] == rows[5::6]
    assert {row["reason"] for row in aside} == {"no usable reply in 3: task is a list of 2; expected one category"}
    # Asked once, once more after a bad reply, and three times in all when no reply is good.
    assert [asked[f"q{i}"] for i in range(6)] == [1, 1, 1, 2, 2, 3]
    assert "Temporal Sequence Positioning" in system and "never" in system.lower()
    assert "25 of 30 queries" in err and "5 set aside" in err and err.count("\n") == 1


def test_the_error_goes_into_the_next_request(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(1, [" no such name"]))
    with ChatServer() as server:
        assert tam("tag", *ARGV, "--base-url", server.url)[0] == 0
        first, second = (body["messages"][-1]["content"] for body in server.bodies)
    assert second.startswith(first) and '"Cooking", which is no category' in second[len(first) :]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_overcome(tmp_path, tam, fault):
    rows = make_rows(12, [""])
    write(tmp_path / "in.jsonl", rows)
    with ChatServer(fault=lambda name, times: fault if times < 2 and name != "q0" else None) as server:
        code, err = tam("tag", *ARGV, "--base-url", server.url, "--concurrency", "4")
        assert code == 0, err
        asked = Counter(server.asked)
    assert read(tmp_path / "out.jsonl") == [expected(row) for row in rows]
    assert asked == Counter({f"q{i}": 1 if i == 0 or fault == "slow" else 3 for i in range(12)})


def test_a_query_without_an_answer_is_set_aside_and_asked_again_next_time(tmp_path, tam):
    rows = make_rows(12, [""])
    write(tmp_path / "in.jsonl", rows)
    with ChatServer(fault=lambda name, times: "500" if name == "q4" and times < 3 else None) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--max-attempts", "3")
        code, err = tam(*argv)
        assert code == 0 and "1 of them without an answer" in err
        assert read(tmp_path / "out.jsonl.rejected.jsonl") == [
            {**rows[4], "reason": "no answer after 3 attempts, the last: HTTP 500: a web page"}
        ]
        before = len(server.asked)
        code, err = tam(*argv)
        assert code == 0 and server.asked[before:] == ["q4"]
    assert read(tmp_path / "out.jsonl") == [expected(row) for row in rows]
    assert (tmp_path / "out.jsonl.rejected.jsonl").read_text() == ""


def test_queries_that_the_server_always_fails_on_do_not_end_a_resumed_run(tmp_path, tam):
    rows = make_rows(30, [""])
    write(tmp_path / "in.jsonl", rows)
    with ChatServer(fault=lambda name, times: None if name == "q0" else "500") as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--max-attempts", "1", "--concurrency", "2")
        for _ in range(2):
            code, err = tam(*argv)
            assert code == 0 and "29 of them without an answer" in err
    assert read(tmp_path / "out.jsonl") == [expected(rows[0])]
    assert len(read(tmp_path / "out.jsonl.rejected.jsonl")) == 29


def test_a_server_that_fails_later_ends_the_run(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(80, [""]))
    with ChatServer(fault=lambda name, times: None if int(name[1:]) < 9 else "500") as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--max-attempts", "1", "--concurrency", "2")
        code, err = tam(*argv)
        assert code == 2 and err.count("\n") == 1 and "queries in a row got no answer" in err
    assert len(read(tmp_path / "out.jsonl.answers.jsonl")) == 10 and not (tmp_path / "out.jsonl").exists()


def test_a_time_limit_on_answers(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(3, [""]))
    with ChatServer(fault=lambda name, times: "slow" if name == "q1" else None, slow_s=600) as server:
        code, _ = tam("tag", *ARGV, "--base-url", server.url, "--timeout", "1", "--max-attempts", "1")
    (aside,) = read(tmp_path / "out.jsonl.rejected.jsonl")
    assert code == 0 and aside["id"] == "set/1"
    assert aside["reason"] == "no answer after 1 attempt, the last: no answer within 1 s (--timeout)"


def test_a_limit_first_and_the_rest_later(tmp_path, tam):
    rows = make_rows(10, [""])
    write(tmp_path / "in.jsonl", rows)
    with ChatServer() as server:
        argv = ("tag", *ARGV, "--base-url", server.url)
        assert tam(*argv, "--limit", "3")[0] == 0
        assert len(server.asked) == 3 and read(tmp_path / "out.jsonl") == [expected(row) for row in rows[:3]]
        assert tam(*argv)[0] == 0
        assert sorted(server.asked) == sorted(f"q{i}" for i in range(10))
        assert tam(*argv, "--limit", "2")[0] == 0 and len(server.asked) == 10
        assert read(tmp_path / "out.jsonl") == [expected(row) for row in rows[:2]]
        assert tam(*argv, "--restart")[0] == 0 and len(server.asked) == 20
    assert len(read(tmp_path / "out.jsonl.answers.jsonl.old")) == 11


def test_more_reasks_take_up_those_set_aside(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(2, ["", " never right"]))
    with ChatServer() as server:
        argv = ("tag", *ARGV, "--base-url", server.url)
        assert tam(*argv, "--max-reasks", "0")[0] == 0 and sorted(server.asked) == ["q0", "q1"]
        assert tam(*argv, "--max-reasks", "3")[0] == 0 and server.asked[2:] == ["q1"] * 3
    assert "in 4:" in read(tmp_path / "out.jsonl.rejected.jsonl")[0]["reason"]


def test_concurrency_is_kept_and_used(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(40, [""]))
    with ChatServer(delay_s=0.02) as server:
        assert tam("tag", *ARGV, "--base-url", server.url, "--concurrency", "5")[0] == 0
        assert server.busiest == 5


def test_the_servers_limit_is_never_exceeded(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(30, [""]))
    with ChatServer(window=(10, 0.3)) as server:
        assert tam("tag", *ARGV, "--base-url", server.url, "--concurrency", "4")[0] == 0
        assert server.refused == 0 and len(server.sent) == 30


def test_costs_are_those_of_all_answers(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(12, ONE_OF_EACH))
    with ChatServer() as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--price-in", "1000", "--price-out", "3000")
        _, err = tam(*argv)
        tokens_in = sum(len(body["messages"][-1]["content"]) for body in server.bodies)
        answers = read(tmp_path / "out.jsonl.answers.jsonl")[1:]
        tokens_out = sum(len(answer["reply"]) for answer in answers)
        assert len(answers) == 20
        assert f"{tokens_in:,} + {tokens_out:,} tokens, cost {tokens_in / 1000 + tokens_out * 3 / 1000:.4g};" in err
        assert tam(*argv) == (0, err)


def test_the_limit_of_cost_stops_and_a_higher_one_goes_on(tmp_path, tam):
    rows = make_rows(40, [""])
    write(tmp_path / "in.jsonl", rows)
    with ChatServer() as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--price-in", "1000", "--price-out", "1000")
        code, err = tam(*argv, "--concurrency", "3", "--max-cost", "2")
        assert code == 2 and err.count("\n") == 1 and "--max-cost is reached" in err and "of 40 queries are done" in err
        assert not (tmp_path / "out.jsonl").exists()
        answers = read(tmp_path / "out.jsonl.answers.jsonl")[1:]
        cost = sum(answer["prompt_tokens"] + answer["completion_tokens"] for answer in answers) / 1000
        assert len(answers) == len(server.sent) and 1.2 < cost < 2.2
        assert tam(*argv, "--max-cost", "100")[0] == 0
        assert len(server.asked) == 40
    assert read(tmp_path / "out.jsonl") == [expected(row) for row in rows]


def test_one_interrupt_keeps_what_is_under_way(tmp_path, start, tam):
    rows = make_rows(60, [""])
    write(tmp_path / "in.jsonl", rows)
    with ChatServer(delay_s=0.05) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--concurrency", "4")
        process = start(*argv)
        server.wait_until(lambda: len(server.sent) >= 10)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130 and "the same command goes on" in err and "Traceback" not in err
        sent = len(server.sent)
        assert sent == len(read(tmp_path / "out.jsonl.answers.jsonl")) - 1 == len(server.asked) < 60
        assert tam(*argv)[0] == 0 and len(server.asked) == 60
    assert read(tmp_path / "out.jsonl") == [expected(row) for row in rows]


def test_a_second_interrupt_leaves_what_is_under_way(tmp_path, start):
    write(tmp_path / "in.jsonl", make_rows(4, [""]))
    with ChatServer(delay_s=600) as server:
        process = start("tag", *ARGV, "--base-url", server.url)
        server.wait_until(lambda: len(server.asked) == 4)
        process.send_signal(signal.SIGINT)
        assert "4 answers are under way" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "0 of 4 queries are done" in err


def test_two_processes_at_once(tmp_path, start, tam):
    write(tmp_path / "in.jsonl", make_rows(4, [""]))
    with ChatServer(delay_s=600) as server:
        argv = ("tag", *ARGV, "--base-url", server.url)
        start(*argv)
        server.wait_until(lambda: len(server.asked) == 4)
        code, err = tam(*argv)
        assert code == 2 and err.count("\n") == 1 and "another process" in err
        assert len(server.asked) == 4


def read_some(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 12)
    except BlockingIOError:
        return b""


def test_a_bar_with_the_estimate_at_a_terminal_alone(tmp_path, monkeypatch, tam):
    write(tmp_path / "in.jsonl", make_rows(20, [""]))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    with ChatServer(delay_s=0.06) as server, os.fdopen(theirs, "w") as terminal:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", terminal)
            argv = ("tag", *ARGV, "--base-url", server.url, "--price-in", "1", "--concurrency", "2")
            assert tam(*argv)[0] == 0
        os.set_blocking(ours, False)
        shown = b"".join(iter(lambda: read_some(ours), b"")).decode()
    os.close(ours)
    assert "20/20" in shown and "cost" in shown and "of about" in shown


def test_paraphrases_keep_everything_else(tmp_path, tam):
    rows = [{**row, "label": 3, "label2": None, "tagger": "v3"} for row in make_rows(12, ONE_OF_EACH)]
    write(tmp_path / "in.jsonl", rows)
    with ChatServer() as server:
        code, err = tam("paraphrase", *ARGV, "--base-url", server.url)
        assert code == 0, err
        assert "läuft" in json.dumps(server.bodies, ensure_ascii=False)
    good = [row for row in rows if "never" not in row["question"]]
    assert read(tmp_path / "out.jsonl") == [
        {
            **row,
            "id": f"{row['id']}#p",
            "question": f"Put another way, {row['question']}",
            "paraphrase_of": row["id"],
        }
        for row in good
    ]
    assert {row["reason"] for row in read(tmp_path / "out.jsonl.rejected.jsonl")} == {
        "no usable reply in 3: paraphrase is the question itself; expected other words"
    }


def test_translations_keep_labels_and_the_number_of_options(tmp_path, tam):
    rows = [
        {**row, "label": 3, "label2": None, "options": ["red", "blue"] if i % 2 else None}
        for i, row in enumerate(make_rows(12, ONE_OF_EACH))
    ]
    write(tmp_path / "in.jsonl", rows)
    with ChatServer() as server:
        code, err = tam("translate", *ARGV, "--base-url", server.url, "--to", "zh")
        assert code == 0, err
        assert "Chinese" in server.bodies[0]["messages"][0]["content"]
        code, err = tam("translate", *ARGV, "--base-url", server.url, "--to", "de")
        assert code == 2 and "another run: prompt is 'translate-" in err
        code, err = tam("translate", *ARGV, "--base-url", server.url, "--to", "xx")
        assert code == 2 and "--to 'xx': expected one of ar, de" in err
    assert read(tmp_path / "out.jsonl") == [
        {
            **row,
            "id": f"{row['id']}#zh",
            "question": f"zh {row['question']}",
            "options": row["options"] and ["zh red", "zh blue"],
            "language": "zh",
            "translation_of": row["id"],
        }
        for row in rows
        if "never" not in row["question"]
    ]
    reasons = {row["reason"] for row in read(tmp_path / "out.jsonl.rejected.jsonl")}
    assert reasons == {"no usable reply in 3: there are 3 options in the reply; expected 2, in their order"}
