"""Bad input and wrong endpoints: exit code 2, one line that says what to do, nothing asked in vain; and the key."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inductor_tagging.conftest import KEY, make_rows, read, write
from tests.inductor_tagging.server import ChatServer, http

ARGV = ("in.jsonl", "--out", "out.jsonl", "--model", "r1", "--retry-wait", "0.01")
GOOD = '{"id": "a", "question": "Why?"}'


@pytest.fixture
def no_server():
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


@pytest.mark.parametrize("command", ["tag", "paraphrase"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (f"{GOOD}\n{{", "line 2: expected a JSON object"),
        (f"{GOOD}\n\n[1]", "line 3: expected a JSON object, got list"),
        ("3", "line 1: expected a JSON object, got int"),
        ("[" * 100_000, "line 1: expected a JSON object"),
        ('{"question": "Why?"}', "line 1: id must be text"),
        ('{"id": 3, "question": "Why?"}', "got 3"),
        ('{"id": " ", "question": "Why?"}', "line 1: id"),
        ('{"id": "a"}', "line 1: question"),
        ('{"id": "a", "question": " "}', "line 1: question"),
        ('{"id": "a", "question": "Why?", "options": "b"}', "line 1: options"),
        ('{"id": "a", "question": "Why?", "options": [1]}', "line 1: options"),
        ('{"id": "a", "question": "Why?", "duration_s": -1}', "line 1: duration_s = -1"),
        ('{"id": "a", "question": "Why?", "duration_s": NaN}', "NaN"),
        ('{"id": "a", "question": "\\ud800"}', "line 1"),
        (f"{GOOD}\n{GOOD}", "line 2: the id 'a' is that of line 1"),
    ],
)
def test_bad_query_files(tmp_path, tam, no_server, command, content, words):
    (tmp_path / "in.jsonl").write_text(content)
    code, err = tam(command, *ARGV, "--base-url", no_server)
    assert code == 2 and err.count("\n") == 1 and words in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_bytes_that_are_no_text_name_the_line(tmp_path, tam, no_server):
    (tmp_path / "in.jsonl").write_bytes(GOOD.encode() + b'\n{"id": "\xff"}\n')
    code, err = tam("tag", *ARGV, "--base-url", no_server)
    assert code == 2 and err.count("\n") == 1 and "line 2" in err


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--base-url", "127.0.0.1:8000/v1"), "--base-url"),
        (("--base-url", "ftp://host/v1"), "--base-url"),
        (("--base-url", "http:///v1"), "--base-url"),
        (("--base-url", "http://host:port/v1"), "--base-url"),
        (("--base-url", "http://host/v1/chat/completions"), "leave out what follows /v1"),
        (("--base-url", f"http://me:{KEY}@host/v1"), "--base-url holds a user's name"),
        (("--base-url", "http://host/v1?a=b"), "--base-url"),
        (("--model", " "), "--model is empty"),
        (("--concurrency", "0"), "--concurrency 0"),
        (("--max-attempts", "0"), "--max-attempts 0"),
        (("--max-reasks", "-1"), "--max-reasks -1"),
        (("--requests-per-minute", "0"), "--requests-per-minute 0"),
        (("--timeout", "nan"), "--timeout nan"),
        (("--retry-wait", "-1"), "--retry-wait -1"),
        (("--temperature", "9"), "--temperature 9"),
        (("--max-tokens", "0"), "--max-tokens 0"),
        (("--limit", "0"), "--limit 0"),
        (("--extra-body", "{"), "--extra-body '{'"),
        (("--extra-body", "[]"), "--extra-body '[]'"),
        (("--extra-body", '{"stream": true}'), "--extra-body sets stream"),
        (("--extra-body", json.dumps({"auth": KEY})), "--extra-body holds the API key"),
        (("--price-in", "-1"), "--price-in -1"),
        (("--price-out", "inf"), "--price-out inf"),
        (("--max-cost", "1"), "--max-cost 1 needs --price-in"),
        (("--price-in", "1", "--max-cost", "0"), "--max-cost 0"),
        (("--out", "no/such/folder/x"), "no folder"),
        (("--out", "."), "--out '.'"),
        (("--out", "in.jsonl"), "write over the queries"),
        (("--api-key-env", "UNSET_KEY"), "UNSET_KEY"),
    ],
)
def test_bad_arguments(tmp_path, tam, no_server, extra, words):
    write(tmp_path / "in.jsonl", make_rows(2))
    code, err = tam("tag", *ARGV, "--base-url", no_server, *extra)
    assert code == 2 and err.count("\n") == 1 and words in err and KEY not in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_a_missing_key(tmp_path, tam, key):
    write(tmp_path / "in.jsonl", make_rows(2, [""]))
    with ChatServer() as server:
        argv = ("tag", *ARGV, "--base-url", server.url)
        code, err = tam(*argv, key=key)
        assert code == 2 and err.count("\n") == 1 and "OPENAI_API_KEY" in err and "--no-key" in err
        assert server.heads == []
        assert tam(*argv, "--no-key", key=key)[0] == 0
        assert len(server.heads) == 2 and "uthorization" not in "".join(server.heads)


@pytest.mark.parametrize("key", [f"{KEY} {KEY}", f"{KEY}\nX: y", f"{KEY}é"])
def test_a_key_that_no_header_can_carry_is_not_shown(tmp_path, tam, no_server, key):
    write(tmp_path / "in.jsonl", make_rows(2))
    code, err = tam("tag", *ARGV, "--base-url", no_server, key=key)
    assert code == 2 and err.count("\n") == 1 and KEY not in err


PAGE = http(200, b"<!DOCTYPE html><p>Welcome", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("answer", "words", "most"),
    [
        (PAGE, "a web page instead of JSON; check --base-url", 12),
        (http(200, b"\n <html>"), "web page", 12),
        (http(401, b'{"error": {"message": "Incorrect API key"}}'), "HTTP 401: Incorrect API key", 4),
        (http(402, b'{"error": {"message": "Insufficient Balance"}}'), "HTTP 402: Insufficient Balance", 4),
        (http(403, b"<html>no"), "HTTP 403: a web page", 4),
        (http(404, b'{"detail": "Not Found"}'), "HTTP 404: Not Found", 4),
        (http(404, b'{"message": "The model r1 does not exist"}'), "The model r1 does not exist", 4),
        (http(404, b""), "end in /v1), --model 'r1' and the key", 4),
        (http(429, b'{"error": {"code": "insufficient_quota", "message": "pay"}}'), "HTTP 429: pay", 4),
        (http(308, b"", {"Location": "https://host/v1"}), "sends on to https://host/v1", 4),
        (http(503, b"", {"Retry-After": "7200"}), "asks to wait 7200 s", 4),
        (http(500, b'{"error": "boom"}'), "queries in a row got no answer", 60),
        (http(400, b'{"error": {"message": "max_tokens is too large"}}'), "HTTP 400: max_tokens is too large", 9),
        (http(200, b"[]"), "no chat completion", 60),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "in a row got no answer", 60),
    ],
)
def test_endpoints_that_are_no_use(tmp_path, tam, answer, words, most):
    write(tmp_path / "in.jsonl", make_rows(40))
    with ChatServer(plain=lambda head: answer) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--concurrency", "4", "--max-attempts", "4")
        code, err = tam(*argv)
        assert code == 2 and err.count("\n") == 1 and words in err
        assert len(server.heads) <= most
    assert not (tmp_path / "out.jsonl").exists()


def test_a_wrong_port(tmp_path, tam, no_server):
    write(tmp_path / "in.jsonl", make_rows(40))
    code, err = tam("tag", *ARGV, "--base-url", no_server)
    assert code == 2 and err.count("\n") == 1 and f"no server can be reached at {no_server}" in err


def test_a_file_whose_queries_are_all_set_aside(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(3, [" never right"]))
    with ChatServer() as server:
        code, err = tam("tag", *ARGV, "--base-url", server.url)
    assert code == 2 and err.count("\n") == 1 and "not one query got a usable answer" in err
    assert len(read(tmp_path / "out.jsonl.rejected.jsonl")) == 3 and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("command", "extra", "words"),
    [
        ("tag", ("--model", "v3"), "another run: model is 'v3', was 'r1'"),
        ("tag", ("--temperature", "1"), "another run: temperature is 1.0, was None"),
        ("tag", ("--extra-body", '{"top_p": 0.5}'), "another run: --extra-body.top_p is 0.5, was None"),
        ("paraphrase", (), "another run: job is 'paraphrase', was 'tag'"),
        ("tag", (), "another run: the file of queries (SHA-256) is "),
    ],
)
def test_a_store_of_something_else(tmp_path, tam, command, extra, words):
    rows = make_rows(3, [""])
    write(tmp_path / "in.jsonl", rows)
    with ChatServer() as server:
        assert tam("tag", *ARGV, "--base-url", server.url)[0] == 0
        store = (tmp_path / "out.jsonl.answers.jsonl").read_bytes()
        if "queries" in words:
            write(tmp_path / "in.jsonl", rows[:2])
        argv = (command, *ARGV, "--base-url", server.url, *extra)
        code, err = tam(*argv)
        assert code == 2 and err.count("\n") == 1 and words in err and "--restart" in err
        assert (tmp_path / "out.jsonl.answers.jsonl").read_bytes() == store and len(server.asked) == 3
        assert tam(*argv, "--restart")[0] == 0


def test_a_store_of_another_prompt(tmp_path, tam, monkeypatch):
    write(tmp_path / "in.jsonl", make_rows(3, [""]))
    with ChatServer() as server:
        assert tam("tag", *ARGV, "--base-url", server.url)[0] == 0
        monkeypatch.setattr("tam_plugin.inductor.tagging.prompts._TAG_SYSTEM", "Be quick.")
        code, err = tam("tag", *ARGV, "--base-url", server.url)
    assert code == 2 and err.count("\n") == 1 and "another run: prompt is 'tag-" in err


@pytest.mark.parametrize(
    "echo",
    [
        lambda head: http(401, json.dumps({"error": {"message": f"wrong: {head}"}}).encode()),
        lambda head: http(400, json.dumps({"detail": {"headers": head.splitlines()}}).encode()),
        lambda head: http(500, head.encode()),
        lambda head: http(500, ("x" * 190 + KEY * 3).encode()),
        lambda head: http(500, json.dumps({"error": KEY.replace("/", "\\/")}).replace("\\\\", "\\").encode()),
        lambda head: http(307, b"", {"Location": f"http://other/?key={KEY}"}),
        lambda head: http(200, json.dumps({"choices": [], "seen": head}).encode()),
        lambda head: http(200, json.dumps({"choices": [{"message": {"content": head, "reasoning": head}}]}).encode()),
        lambda head: http(200, json.dumps({"choices": [{"message": {"content": KEY}, "finish_reason": KEY}]}).encode()),
        lambda head: f"{KEY} 200 OK\r\n\r\n".encode(),
    ],
)
def test_the_key_is_nowhere_even_if_the_server_says_it(tmp_path, tam, echo):
    write(tmp_path / "in.jsonl", make_rows(3, [""]))
    with ChatServer(plain=echo) as server:
        code, err = tam("tag", *ARGV, "--base-url", server.url, "--max-attempts", "2")
        assert code == 2 and any(f"Bearer {KEY}" in head for head in server.heads)
    holds_key(tmp_path, err)


def test_the_key_is_in_no_file_of_a_good_run(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(6))
    with ChatServer(key=KEY) as server:
        code, err = tam("tag", *ARGV, "--base-url", server.url)
    assert code == 0
    holds_key(tmp_path, err)


def holds_key(folder: Path, err: str) -> None:
    """Neither the key nor half of it is in what was written."""
    written = err + "".join(path.read_text() for path in folder.iterdir())
    for form in (KEY, KEY[:14], KEY[-14:], json.dumps(KEY)[1:-1]):
        assert form not in written


def test_the_parser_is_light():
    code = (
        "import argparse, sys; from tam_plugin.cli import data_tagging; "
        "data_tagging.add_parsers(argparse.ArgumentParser().add_subparsers()); "
        "print([m for m in ('httpx', 'torch', 'transformers', 'tqdm', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_httpx_nothing_is_begun(tmp_path, tam, monkeypatch, no_server):
    write(tmp_path / "in.jsonl", make_rows(2))
    monkeypatch.setitem(sys.modules, "httpx", None)
    code, err = tam("tag", *ARGV, "--base-url", no_server)
    assert code == 2 and err.count("\n") == 1 and "pip install 'httpx>=" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
