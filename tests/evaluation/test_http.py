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
    """Answers each request by `reply(body, number)`: JSON, (status, headers, bytes), or what writes to the wire."""

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
                if callable(answer):
                    answer(self.wfile)
                    self.close_connection = True
                    return
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
    assert {name: value for name, value in body.items() if name not in ("seed", "prompt")} == {
        "model": "m", "max_tokens": 8, "temperature": 1.0, "top_p": 0.9, "top_k": 7, "min_p": 0.0,
        "repetition_penalty": 1.0, "logprobs": 0,
    }, "all that a server's generation_config could say otherwise"  # fmt: skip
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


# --- where thinking ends ----------------------------------------------------------------------------------------------


def chat(message, length, *, reason="stop", logprobs=None, **usage):
    choice = {"message": {"role": "assistant", **message}, "finish_reason": reason}
    if logprobs:
        choice["logprobs"] = {"content": [{"token": token, "logprob": -1.0} for token in logprobs]}
    return {"choices": [choice], "usage": {"completion_tokens": length, **usage}}


THOUGHT_COUNTED = {"completion_tokens_details": {"reasoning_tokens": 6}}


@pytest.mark.parametrize(
    ("message", "more", "think_length"),
    [
        pytest.param({"reasoning_content": "hm", "content": "4"}, THOUGHT_COUNTED, 6, id="DeepSeek counts"),
        pytest.param({"reasoning": "hm", "content": "4"}, {}, None, id="vLLM without a count"),
        pytest.param({"reasoning": "hm", "content": "4"}, {"reasoning_tokens": 5}, 5, id="SGLang counts"),
        pytest.param({"reasoning": "hm", "content": "4"}, {"reasoning_tokens": 0}, None, id="a 0 that says nothing"),
        pytest.param({"content": "<think>hm</think>4"}, {}, None, id="inline without a count"),
        pytest.param(
            {"reasoning": "hm", "content": "4"},
            {"logprobs": ["<think>", "h", "m", "</think>", *"4....", "<e>"]}, 3, id="vLLM with token texts",
        ),
        pytest.param(
            {"content": "<think>hm</think>4"},
            {"logprobs": ["<think>", "hm", "</", "think>", *"4....", "<e>"]}, 2, id="inline with token texts",
        ),
        pytest.param(
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                         {"type": "text", "text": "4"}]}, {}, None, id="parts",
        ),
    ],
)  # fmt: skip
def test_thinking_is_found_in_every_servers_form(server, message, more, think_length):
    server.reply = lambda body, number: chat(message, 10, **more)
    (row,) = ask(backend(server, endpoint="chat"), PROMPTS[:1]).rows
    assert (row.completion, row.length, row.think_length) == ("<think>hm</think>4", 10, think_length)


@pytest.mark.parametrize(
    ("message", "think_length"),
    [({"reasoning": "12+3", "content": "4"}, 4), ({"content": "<think>12+3</think>4"}, 5)],
)
def test_a_tokenizer_at_hand_counts_the_thinking_that_a_server_does_not(server, tokenizer, message, think_length):
    server.reply = lambda body, number: chat(message, 9)
    (row,) = ask(backend(server, endpoint="chat", tokenizer=tokenizer), PROMPTS[:1]).rows
    assert row.think_length == think_length
    assert row.answer_length == 9 - think_length - 1


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": "12 is 4", "content": None},
        {"reasoning": "12 is 4", "content": ""},
        {"content": "<think>12 is 4"},
        {"content": [{"type": "thinking", "thinking": "12 is 4"}]},
    ],
)
def test_thinking_that_the_limit_cut_counts_the_same_wherever_it_stands(server, message):
    server.reply = lambda body, number: chat(message, 8, reason="length")
    made = ask(backend(server, endpoint="chat"), PROMPTS[:1])
    (row,) = made.rows
    assert (row.completion, row.length, row.think_length, row.answer_length) == ("<think>12 is 4", 8, 8, 0)
    assert row.truncated
    assert made.summary()["no_think_end_frac"] == 1


def test_another_models_tags(server):
    server.reply = lambda body, number: chat({"reasoning": "hm", "content": "4"}, 9, reasoning_tokens=3)
    (row,) = ask(backend(server, endpoint="chat"), PROMPTS[:1], think_end="[/THINK]").rows
    assert (row.completion, row.think_length) == ("[THINK]hm[/THINK]4", 3)


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_bos_is_sent_once(server, tokenizer):
    import copy

    from tokenizers import processors

    chatty = copy.deepcopy(tokenizer)
    chatty.add_special_tokens({"bos_token": "<s>"})
    chatty.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"

    def sent(tokenizer):
        evaluate(backend(server), tokenizer, PROMPTS[:1], EvenLength(), **SETTINGS)
        return server.seen[-1][1]["prompt"]

    assert sent(chatty) == "<s>0+1=", "this server's tokenizer adds none"
    inner = chatty.backend_tokenizer
    inner.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", chatty.bos_token_id)])
    assert chatty("0")["input_ids"][0] == chatty.bos_token_id
    assert sent(chatty) == "0+1=", "this one's adds its own"
    chatty.chat_template = None
    assert sent(chatty) == "0+1="


def test_all_settings_of_a_chat_are_sent(server):
    server.reply = lambda body, number: chat({"content": "4"}, 2)
    settings = {"top_k": 20, "min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}}
    ask(backend(server, endpoint="chat"), PROMPTS[:1], **settings)
    _, body, _ = server.seen[0]
    assert body["top_k"] == 20
    assert body["min_p"] == 0.1
    assert body["repetition_penalty"] == 1.0
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_what_a_hosted_server_does_not_know_is_said_otherwise_or_left_out_once(server):
    def reply(body, number):
        if "max_tokens" in body:
            return 400, {}, b"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        for name in ("top_k", "min_p", "repetition_penalty"):
            if name in body:
                return 400, {}, f"Unrecognized request argument supplied: {name}".encode()
        return chat({"content": "4"}, 2)

    server.reply = reply
    hosted = backend(server, endpoint="chat", concurrency=1)
    assert len(ask(hosted, PROMPTS[:3]).rows) == 3
    assert server.seen[-1][1]["max_completion_tokens"] == 8
    assert len(server.seen) == 4 + 3, "each field is refused once, not once a completion"
    with pytest.raises(UserError, match=r"refused \(400: Unrecognized request argument supplied: top_k\)"):
        ask(backend(server, endpoint="chat"), PROMPTS[:1], top_k=5)


# --- bounds -----------------------------------------------------------------------------------------------------------


def head(wire, length=None):
    wire.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    wire.write(f"Content-Length: {length}\r\n\r\n".encode() if length else b"Transfer-Encoding: chunked\r\n\r\n")


def endless_chunks(wire):
    head(wire)
    while True:
        wire.write(b"10000\r\n" + b" " * 65536 + b"\r\n")


def a_gigabyte(wire):
    head(wire, 1 << 30)
    for _ in range(1 << 14):
        wire.write(b" " * 65536)


def endless_head(wire):
    wire.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.write(b"HTTP/1.1 100 Continue\r\n" * 50 + b"\r\n")


def endless_continue(wire):
    while True:
        wire.write(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 1000)


def drip(body):
    def write(wire):
        if body:
            head(wire, 1000)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000:
            wire.write(bytes([byte]))
            wire.flush()
            time.sleep(0.05)

    return write


@pytest.mark.parametrize("write", [endless_chunks, a_gigabyte, endless_continue])
def test_an_answer_without_an_end_is_refused_in_little_memory(server, write):
    import tracemalloc

    server.reply = lambda body, number: write
    tracemalloc.start()
    with pytest.raises(UserError, match=r"sent more than 1,056,768 bytes, .* in 2 attempts: check that base_url"):
        ask(backend(server, attempts=2, timeout_seconds=60.0), PROMPTS[:1], max_new_tokens=8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_head_without_an_end_is_refused(server):
    server.reply = lambda body, number: endless_head
    with pytest.raises(UserError, match="in 2 attempts"):
        ask(backend(server, attempts=2, timeout_seconds=60.0), PROMPTS[:1])


@pytest.mark.parametrize("body", [True, False])
def test_bytes_that_drip_do_not_outlive_the_timeout(server, body):
    server.reply = lambda request, number: drip(body)
    start = time.monotonic()
    message = r"was not done after 2 s, when \d+ bytes had come in 1 attempts: raise timeout"
    with pytest.raises(UserError, match=message):
        ask(backend(server, attempts=1, timeout_seconds=2.0), PROMPTS[:1])
    assert time.monotonic() - start < 15, "it drips for 50 s"


@pytest.mark.parametrize("count", ["1e308", "1e400", "-1", "73", "true", '"4"', "4.5", "NaN", "9" * 4000])
def test_a_count_that_cannot_be_is_no_completion(server, count):
    text = f'{{"choices": [{{"text": "a", "finish_reason": "stop"}}], "usage": {{"completion_tokens": {count}}}}}'
    server.reply = lambda body, number: (200, {}, text.encode())
    with pytest.raises(UserError, match=r"no completion .*(completion_tokens is|no JSON)"):
        ask(backend(server), PROMPTS[:1])


def test_a_server_that_gave_up_is_asked_again(server):
    good = server.reply
    server.reply = lambda body, number: completion("half", reason="abort") if number == 1 else good(body, number)
    (row,) = ask(backend(server), PROMPTS[:1]).rows
    assert row.completion == "<think>t</think>ab"


def test_the_last_word_names_every_kind_of_failure(server):
    replies = [(503, {}, b"busy"), lambda wire: head(wire, 10**9) or wire.write(b" " * 2_000_000), (200, {}, b"<p>")]
    server.reply = lambda body, number: replies[number - 1]
    with pytest.raises(UserError) as caught:
        ask(backend(server, concurrency=1), PROMPTS[:1])
    assert "(no JSON; it begins '<p>') in 3 attempts (before that it answered 503 (busy); sent more than" in str(
        caught.value
    )


# --- secrets ----------------------------------------------------------------------------------------------------------

KEY = "sk-live/0123456789abcdef"


def test_a_key_from_a_file_is_stripped(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    ask(backend(server), PROMPTS[:1])
    assert server.seen[0][2]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("bad", ["sk-live\nX-Other: 1", "sk live", "sk-l\u00efve", "sk\x00live"])
def test_a_key_that_no_header_carries_is_refused_unseen(server, monkeypatch, bad):
    with contextlib.suppress(ValueError):  # the system itself refuses a NUL
        monkeypatch.setenv("OPENAI_API_KEY", bad)
        with pytest.raises(UserError, match="variable OPENAI_API_KEY holds white space") as caught:
            backend(server)
        assert "live" not in str(caught.value) + repr(caught.value.__context__)


@pytest.mark.parametrize(
    "echo",
    [
        lambda key: (401, {}, f"bad key {key}".encode()),
        lambda key: (503, {}, f"bad key {key}".encode()),
        lambda key: (200, {}, f"<html>{'x' * 90} {key}".encode()),
        lambda key: {"error": {"message": key}},
        lambda key: (
            200,
            {},
            json.dumps({"choices": [{"text": "a", "finish_reason": key}]}).replace("/", "\\/").encode(),
        ),
        lambda key: lambda wire: wire.write(f"HTTP/9.9 {key}\r\n\r\n".encode()),
        lambda key: lambda wire: wire.write(f"{key}\r\n\r\n".encode()),
        lambda key: (302, {"Location": f"http://127.0.0.1:1/{key}"}, b""),
    ],
)
def test_a_key_that_a_server_echoes_is_shown_nowhere(server, monkeypatch, echo):
    import traceback

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.reply = lambda body, number: echo(KEY)
    with pytest.raises(UserError) as caught:
        ask(backend(server, attempts=2), PROMPTS[:1])
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY[:12] not in str(caught.value)


def test_a_key_in_a_completion_is_not_stored(server, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.reply = lambda body, number: completion(f"you sent {KEY}", usage={"completion_tokens": 4})
    (row,) = ask(backend(server), PROMPTS[:1], store=tmp_path / "store.jsonl").rows
    assert row.completion == "you sent ***"
    assert KEY not in (tmp_path / "store.jsonl").read_text()
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    server.reply = lambda body, number: completion("EMPTY set", usage={"completion_tokens": 4})
    assert ask(backend(server), PROMPTS[:1]).rows[0].completion == "EMPTY set", "no secret, and a word"


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@localhost:8000/v1", "http://hunter2@localhost/v1", "http://localhost/v1?key=hunter2",
        "http://me:hunter2@localhost:port/v1", "http://me:hunter2@", "http://localhost/v1#hunter2",
        "http://local host/v1", "http://localhost\n/v1", "http:///v1", "http://[::1/v1", "ftp://localhost/v1",
    ],
)  # fmt: skip
def test_an_address_with_a_secret_or_a_flaw_is_refused_without_it(url):
    with pytest.raises(UserError, match="base_url=") as caught:
        HTTPBackend(url, "m")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
