"""The HTTP back end against a server on this machine that can be down, slow, busy or talk nonsense."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.evaluation import Evaluation, Mode, evaluate
from concise_rl.evaluation.backends import HTTPBackend

from .conftest import EvenLength

PROMPTS = [Prompt.of(f"{i}+1=", str(i + 1)) for i in range(12)]
SETTINGS = {"max_new_tokens": 8, "temperature": 1.0, "top_p": 0.9, "seed": 3}


def completion(text, tokens=None, *, reason="stop", usage=None):
    choice = {"text": text, "finish_reason": reason}
    if tokens is not None:
        choice["logprobs"] = {"tokens": tokens}
    return {"choices": [choice], "usage": usage or {"completion_tokens": len(tokens or text)}}


class Server:
    """Answers each request by `reply(body, number)`: JSON, or (status, headers, bytes)."""

    def __init__(self):
        self.reply = lambda body, number: completion("<think>t</think>ab", ["<think>", "t", "</think>", "a", "b"])
        self.seen, self.busy, self.most_busy = [], 0, 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.seen.append((self.path, body, dict(self.headers)))
                    number = len(server.seen)
                    server.busy += 1
                    server.most_busy = max(server.most_busy, server.busy)
                try:
                    answer = server.reply(body, number)
                finally:
                    with lock:
                        server.busy -= 1
                status, headers, content = (
                    answer if isinstance(answer, tuple) else (200, {}, json.dumps(answer).encode())
                )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

            def handle(self):
                with contextlib.suppress(OSError):  # the client gave up waiting
                    super().handle()

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def backend(server, **settings):
    chosen = {"timeout_seconds": 5.0, "attempts": 3, "backoff_seconds": 0.01, "concurrency": 4, **settings}
    return HTTPBackend(server.url, "m", **chosen)


def ask(backend, prompts=PROMPTS, **settings):
    return evaluate(backend, None, prompts, EvenLength(), **{**SETTINGS, **settings})


def test_rows_and_requests(server):
    server.reply = lambda body, number: (
        time.sleep(0.02)
        or completion(f"<think>t</think>{body['prompt']}", ["<think>", "t", "</think>", *body["prompt"]])
    )
    made = ask(backend(server, extra_body={"top_k": 7}), samples=2)
    assert [row.prompt_id for row in made.rows] == [prompt.id for prompt in PROMPTS for _ in range(2)]
    assert all(row.completion == f"<think>t</think>{row.prompt}" for row in made.rows), "answers find their problems"
    assert {(row.length, row.think_length, row.answer_length, row.truncated) for row in made.rows[:20]} == {
        (7, 2, 4, False)
    }
    assert made.rows[0].repetition == 0
    assert 1 < server.most_busy <= 4
    assert len({body["seed"] for _, body, _ in server.seen}) == 24
    path, body, headers = server.seen[0]
    assert path == "/v1/completions"
    assert {name: body[name] for name in ("model", "max_tokens", "temperature", "top_p", "top_k", "logprobs")} == {
        "model": "m", "max_tokens": 8, "temperature": 1.0, "top_p": 0.9, "top_k": 7, "logprobs": 0,
    }  # fmt: skip
    assert headers["Authorization"] == "Bearer secret"


def test_chat_gives_thinking_apart(server):
    message = {"role": "assistant", "reasoning_content": "hm", "content": "4"}
    details = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 6}}
    server.reply = lambda body, number: {"choices": [{"message": message, "finish_reason": "length"}], "usage": details}
    (row,) = ask(backend(server, endpoint="chat"), PROMPTS[:1], system="be brief").rows
    assert (row.completion, row.length, row.think_length, row.truncated) == ("<think>hm</think>4", 9, 6, True)
    path, body, _ = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "0+1="}]
    with pytest.raises(UserError, match="endpoint=chat cannot go on"):
        ask(backend(server, endpoint="chat"), mode=Mode.no_thinking())


def test_a_server_that_tells_no_tokens_leaves_think_lengths_open(server):
    server.reply = lambda body, number: completion("t</think>a", usage={"completion_tokens": 5})
    made = ask(backend(server), PROMPTS[:2])
    assert {(row.length, row.think_length, row.answer_length) for row in made.rows} == {(5, None, None)}
    assert made.summary()["mean_think_tokens"] is None
    assert made.summary()["mean_tokens"] == 5
    assert "2 of 2 completions have no think length" in made.notices()[0]


def test_forced_budget_goes_on_from_the_text(server):
    def reply(body, number):
        if body["prompt"].endswith("</think>="):
            return completion("ab", ["a", "b", "<eos>"])
        return completion("t" * body["max_tokens"], ["t"] * body["max_tokens"], reason="length")

    server.reply = reply
    (row,) = ask(backend(server), PROMPTS[:1], mode=Mode.forced(3, answer_start="=")).rows
    assert (row.completion, row.length, row.think_length, row.forced) == ("ttt</think>=ab", 6, 3, True)
    assert [body["max_tokens"] for _, body, _ in server.seen] == [3, 5]


@pytest.mark.parametrize(
    "failure",
    [
        (503, {}, b"busy"),
        (429, {"Retry-After": "0.05"}, b"{}"),
        (200, {}, b"<html>gateway</html>"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"text": "a", "finish_reason": "stop"}]}'),  # no count of tokens
        (200, {}, b"[]"),
        (200, {"Content-Length": "99"}, b"cut short"),
        (200, {}, b"[" * 100_000),
        (200, {}, b'{"choices": [{"text": "a", "finish_reason": "stop"}], "usage": {"completion_tokens": 1e999}}'),
    ],
)
def test_passing_failures_are_tried_again(server, failure):
    good = server.reply
    server.reply = lambda body, number: failure if number % 3 else good(body, number)
    assert len(ask(backend(server, concurrency=1), PROMPTS[:2]).rows) == 2
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    ("reply", "attempts", "message"),
    [
        ((503, {}, b"no\n  room"), 3, r"completions answered 503 \(no room\) in 3 attempts: wait until it is free"),
        ((401, {}, b"bad key"), 1, r"refused \(401: bad key\): check base_url, model, key"),
        ((200, {}, b"<html>"), 3, r"no completion \(no JSON; it begins '<html>'\) in 3 attempts: check that base_url"),
        ({"error": "x"}, 3, r"no completion \(KeyError: 'choices'"),
        (completion("a", usage={"completion_tokens": "many"}), 3, "no completion"),
        (completion(7, usage={"completion_tokens": 1}), 3, "text and finish_reason must be texts"),
    ],
)
def test_lasting_failures_are_one_line(server, reply, attempts, message):
    server.reply = lambda body, number: reply
    with pytest.raises(UserError, match=message) as caught:
        ask(backend(server, concurrency=1), PROMPTS[:1])
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(server.seen) == attempts


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_key_and_prompt_go_to_the_named_server_alone(server, status):
    thief = Server()
    server.reply = lambda body, number: (status, {"Location": f"{thief.url}/completions"}, b"this way")
    with pytest.raises(UserError, match=rf"refused \({status}: this way\)"):
        ask(backend(server), PROMPTS[:1])
    thief.http.shutdown()
    thief.http.server_close()
    assert thief.seen == []


def test_a_server_that_is_down_or_silent(server):
    server.reply = lambda body, number: time.sleep(0.4) or completion("a")
    with pytest.raises(UserError, match=r"was silent for 0.1 s in 2 attempts: raise timeout_seconds"):
        ask(backend(server, timeout_seconds=0.1, attempts=2), PROMPTS[:1])
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match=r"cannot be reached \(Connection refused\) in 3 attempts: start the server"):
        ask(backend(server), PROMPTS[:1])


def test_waits_grow_and_scatter(server, monkeypatch):
    waits = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, seconds=None: waits.append(seconds))
    server.reply = lambda body, number: (500, {}, b"")
    with pytest.raises(UserError):
        ask(backend(server, attempts=6, backoff_seconds=8.0), PROMPTS[:1])
    waits = [seconds for seconds in waits if seconds is not None and seconds >= 4]
    limits = [(4, 8), (8, 16), (16, 32), (30, 60), (30, 60)]
    assert len(waits) == 5
    assert all(low <= seconds <= high for seconds, (low, high) in zip(waits, limits, strict=True))


def test_what_was_stored_before_the_server_died_is_not_asked_again(server, tmp_path):
    store = tmp_path / "store.jsonl"
    good = server.reply
    server.reply = lambda body, number: good(body, number) if number <= 5 else (400, {}, b"gone")
    with pytest.raises(UserError, match="400: gone"):
        ask(backend(server, concurrency=1), store=store)
    assert len(Evaluation.load(store).rows) == 5
    server.seen.clear()
    server.reply = good
    elsewhere = backend(server, concurrency=3, attempts=9)
    assert len(ask(elsewhere, store=store).rows) == len(PROMPTS)
    assert len(server.seen) == len(PROMPTS) - 5


def test_empty_and_odd_completions_are_counted_and_said(server):
    texts = ["", "<think>x</think>b</think>c", "abc"]
    server.reply = lambda body, number: completion(texts[int(body["prompt"][0])], usage={"completion_tokens": 4})
    made = ask(backend(server), PROMPTS[:3])
    assert made.summary()["empty_frac"] == pytest.approx(1 / 3)
    assert [notice.split(":")[0] for notice in made.notices()] == [
        "1 of 3 completions are empty",
        "1 of 3 completions hold </think> more than once",
        "1 of 3 completions ended without </think>",
        "1 of 3 completions have no think length",
        "1 of 3 completions have no verdict and count as wrong, mostly because",
    ]


@pytest.mark.parametrize(
    "settings",
    [{"base_url": "localhost"}, {"endpoint": "speech"}, {"concurrency": 0}, {"attempts": 0}, {"backoff_seconds": -1}],
)
def test_refusals(settings):
    (name,) = settings
    with pytest.raises(UserError, match=name):
        HTTPBackend(**{"base_url": "http://x/v1", "model": "m", **settings})
