"""`axe-hf serve`: as a process, with the clients that people have."""

import csv
import http.client
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import translate
from axe_hf.commands import serve

WORDS = ["one", "two", "three", "four", "eins", "zwei", "drei", "vier"]
SENTENCES = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS[:4]][:200]


@pytest.fixture(scope="module")
def alone(model):
    """What each sentence becomes by itself."""
    loaded = AutoModelForSeq2SeqLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    return {text: translate(*loaded, [text])[0] for text in SENTENCES}


class Served:
    """A running `axe-hf serve`."""

    def __init__(self, *argv, environment=None):
        command = [sys.executable, "-m", "axe_hf", "serve", *map(str, argv), "--port", "0"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        variables = os.environ | (environment or {})
        self.process = subprocess.Popen(command, env=variables, **pipes)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if '"event": "Application startup complete."' in line:
                break
        else:
            raise AssertionError("".join(self.log))
        (self.url,) = [json.loads(line)["url"] for line in self.log if '"serving"' in line]
        self.address = urlsplit(self.url).hostname, urlsplit(self.url).port
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()

    def post(self, path, fields):
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            headers = {"content-type": "application/json"}
            connection.request("POST", path, json.dumps(fields), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def ask(self, text, **fields):
        fields = {"q": text, "source": "en", "target": "de"} | fields
        return self.post("/translate", fields)

    def end(self, kind=signal.SIGTERM):
        """The exit code after a signal."""
        self.process.send_signal(kind)
        code = self.process.wait(60)
        self.reader.join()
        return code

    def requests(self, status=200):
        found = [json.loads(line) for line in self.log]
        return [r for r in found if r["event"] == "request" and r["status"] == status]


@pytest.fixture(scope="module")
def start():
    """Starts servers, which end with the module."""
    started = []

    def run(*argv, **kwargs):
        started.append(Served(*argv, **kwargs))
        return started[-1]

    yield run
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait()
        served.reader.join()
        served.process.stdout.close()
        served.process.stderr.close()


@pytest.fixture(scope="module")
def shared(start, model):
    """One that asks for a key."""
    return start(f"{model}=en-de", environment={"AXE_HF_API_KEYS": "first second"})


@pytest.mark.slow
def test_libretranslatepy_is_answered(shared, alone):
    from libretranslatepy import LibreTranslateAPI

    client = LibreTranslateAPI(shared.url, api_key="second")
    assert client.translate("one two one", "en", "de") == alone["one two one"]
    text = "one two one\n\n  three four one \n"
    expected = f"{alone['one two one']}\n\n  {alone['three four one']} \n"
    assert client.translate(text, "en", "de") == expected
    languages = client.languages()
    assert {"code": "en", "name": "English", "targets": ["de"]} in languages
    with pytest.raises(urllib.error.HTTPError, match="400") as error:
        client.detect("one")
    assert "detection" in json.loads(error.value.read())["error"]
    with pytest.raises(urllib.error.HTTPError, match="403") as error:
        LibreTranslateAPI(shared.url, api_key="third").translate("one", "en", "de")
    assert json.loads(error.value.read()) == {"error": "Invalid API key"}


@pytest.mark.slow
def test_200_at_once_are_answered_rightly(shared, alone):
    before = len(shared.requests())
    with ThreadPoolExecutor(200) as pool:
        found = [*pool.map(lambda text: shared.ask(text, api_key="first"), SENTENCES)]
    assert found == [(200, {"translatedText": alone[text]}) for text in SENTENCES]
    shared.ask("one")  # by the time that it is answered the others are in the log
    assert len(shared.requests()) - before >= 199 and "one two" not in "".join(shared.log)


@pytest.mark.slow
def test_200_at_once_are_answered_rightly_or_told_to_come_back(start, model, alone):
    served = start(f"{model}=en-de", "--max-queue", 8, "--batch-size", 4, "--max-characters", 40)
    texts = [SENTENCES[n] if n % 10 else "x" * 50 for n in range(200)]
    with ThreadPoolExecutor(200) as pool:
        found = [*pool.map(served.ask, texts)]
    for text, (status, answer) in zip(texts, found, strict=True):
        if text in alone:
            assert status == 429 or answer == {"translatedText": alone[text]}
        else:
            assert status == 413 and "50" in answer["error"]
    assert {status for status, _ in found} == {200, 413, 429}
    assert served.ask("one two one") == (200, {"translatedText": alone["one two one"]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_ends_it_when_what_was_accepted_is_answered(start, model, alone, kind):
    served = start(f"{model}=en-de", "--batch-size", 2)
    text = "\n".join(SENTENCES[:20])
    expected = "\n".join(alone[line] for line in SENTENCES[:20])
    answered, refused, is_sent = [], [], threading.Event()

    def ask(_):
        while True:
            try:
                status, answer = served.ask(text)
            except (ConnectionError, http.client.RemoteDisconnected):
                refused.append(is_sent.is_set())
                return
            assert (status, answer) == (200, {"translatedText": expected})
            answered.append(is_sent.is_set())

    with ThreadPoolExecutor(16) as pool:
        done = [pool.submit(ask, n) for n in range(16)]
        while len(answered) < 5:
            time.sleep(0.01)
        is_sent.set()
        assert served.end(kind) == 0
        for each in done:
            each.result()
    assert all(refused) and len(refused) == 16
    assert sum(answered) > 0, "none was under way"
    assert len(served.requests()) == len(answered)


@pytest.mark.slow
def test_garbage_on_the_socket_does_not_end_it(shared):
    head = b"POST /translate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for garbage in (
        b"\0\xff\xfe\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nhost: x\r\nx: \xff\r\n\r\n",
        head + b"content-length: -1\r\n\r\n",
        head + b"content-length: 100\r\n\r\n{",
        head + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        head + b"transfer-encoding: chunked\r\n\r\n" + b"100000\r\n" + b"x" * 2**20 + b"\r\n" * 1,
        head + b"expect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n",
    ):
        with socket.create_connection(shared.address) as connection:
            connection.sendall(garbage)
            connection.settimeout(0.3)
            try:
                start_line = connection.recv(100)
                assert not start_line or start_line.split()[1][:1] in (b"1", b"4"), start_line
            except (TimeoutError, ConnectionError):
                pass
    assert shared.ask("one", api_key="second")[0] == 200


@pytest.mark.slow
def test_two_models_one_exported_and_settings_of_their_decoding(start, axe_hf, model, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "int8"
    assert axe_hf("export", model, "--output-dir", folder, "--int8")[0] == 0
    served = start(f"{model}=en-de", f"{folder}=de-en", "--num-iterations", 2)
    status, found = served.post(
        "/v1/translate", {"q": "one", "source_lang": "de", "target_lang": "en", "history": True}
    )
    assert status == 200 and found["model"] == "int8"
    assert len(found["translations"][0]["sentences"][0]["passes"]) == 3
    assert served.ask("one two one")[0] == 200


@pytest.mark.slow
def test_int8_is_served_and_an_open_server_warns(start, model):
    served = start(f"{model}=en-de", "--int8", "--host", "0.0.0.0", "--num-threads", 1)
    assert served.ask("one two one")[0] == 200
    assert served.end() == 0
    assert any('"open"' in line and "api-key-file" in line for line in served.log)


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(fails):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = fails(1, "serve", "/no/model=en-de", "--port", port)
    assert f"--host 127.0.0.1 --port {port}: cannot listen there" in error
    assert "cannot listen there" in fails(1, "serve", "/no/model", "--host", "192.0.2.1")


def test_what_cannot_be_served_is_told(fails, model, tmp_path):
    port = ("--port", 0)
    assert "not known which languages model translates" in fails(1, "serve", model, *port)
    assert "there is no folder /no/model" in fails(1, "serve", "/no/model=en-de", *port)
    (tmp_path / "keys").write_text("\n \n")
    error = fails(1, "serve", f"{model}=en-de", *port, "--api-key-file", tmp_path / "keys")
    assert "holds no key" in error
    assert "No such file" in fails(1, "serve", model, *port, "--api-key-file", tmp_path / "none")
    assert "directions such as en-de" in fails(2, "serve", f"{model}=german")
    assert "given twice" in fails(2, "serve", f"{model}=en-de", f"{model}=de-en")
    assert "must be a port" in fails(2, "serve", model, "--port", 70000)
    assert "num_iterations" in fails(2, "serve", model, "--num-iterations", 0)
    assert "--max-items" in fails(2, "serve", model, "--max-items", "0")
    assert "MODEL" in fails(2, "serve")


def test_a_name_with_a_sign_of_equality_may_be_a_folder(tmp_path):
    folder = tmp_path / "lr=en-de"
    folder.mkdir()
    assert serve.parse([str(folder), "a/b"]).served == [(str(folder), None), ("a/b", None)]
    given = serve.parse([f"{folder}=zh-CN:en,en-de"]).served
    assert given == [(str(folder), ["zh-CN:en", "en-de"])]


def test_a_missing_package_names_the_extra(fails, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    error = fails(1, "serve", f"{model}=en-de", "--port", 0)
    assert 'python -m pip install "axe-hf[serve]"' in error and "uvicorn" in error


@pytest.mark.slow
def test_the_benchmark_plays_clients_and_finds_one_translation_of_each_text(
    model, benchmarks, tmp_path, monkeypatch, capsys
):
    data = tmp_path / "pairs.tsv"
    data.write_text("".join(f"{text}\teins\n" for text in SENTENCES[:30]))
    argv = [f"{model}=en-de", data, "--source-lang", "en", "--target-lang", "de", "--check"]
    argv += ["--clients", 1, 8, "--rounds", 2, "--precisions", "float32", "--output-dir", tmp_path]
    monkeypatch.setattr(sys, "argv", ["serving.py", *map(str, argv)])
    runpy.run_path(str(benchmarks / "serving.py"), run_name="__main__")
    _, *lines = (tmp_path / "serving_cpu.csv").read_text().splitlines()
    rows, printed = list(csv.DictReader(lines)), capsys.readouterr().out
    assert [row["clients"] for row in rows] == ["1", "8"] and rows[0]["speedup"] == "1.00"
    for row in rows:
        assert row["requests"] == "60"
        assert 0 < float(row["p50_ms"]) <= float(row["p95_ms"]) <= float(row["p99_ms"])
        assert f"| float32 | {row['clients']} | 60 |" in printed
