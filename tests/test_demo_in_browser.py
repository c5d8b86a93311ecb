"""The page of `axe-hf demo` in a real browser: typed, clicked, read."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
import torch

pytest.importorskip("gradio", reason="the page needs the extra demo")
pytest.importorskip("selenium", reason="the browser is driven by selenium: the extra test-demo")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="apt-get install chromium-driver"),
]
PAIRS = [("one two", "eins zwei"), ("three four one", "drei vier eins")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small untrained model, and an autoregressive one."""
    from transformers import MarianConfig, MarianMTModel

    from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer

    folder = tmp_path_factory.mktemp("demo")
    tokenizer = train_tokenizer([text for pair in PAIRS for text in pair] * 5, vocab_size=300)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    limits = {"max_source_length": 24, "max_target_length": 12, "tie_word_embeddings": False}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    vocabulary = {"vocab_size": len(tokenizer)}
    models = {"model": CmlmForConditionalGeneration(CmlmConfig(**vocabulary, **sizes, **limits))}
    models["teacher"] = MarianMTModel(MarianConfig(**vocabulary, **sizes, **heads, **ids))
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    lines = [f"{text}\t{reference}\n" for text, reference in PAIRS]
    (folder / "examples.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def says(folders):
    """What the model says of a text, by `translate`."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from axe_hf import translate

    model = AutoModelForSeq2SeqLM.from_pretrained(folders / "model")
    tokenizer = AutoTokenizer.from_pretrained(folders / "model")
    return lambda text, **how: translate(model, tokenizer, [text], **how)[0]


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@pytest.fixture(scope="module")
def served(folders, repository):
    """The process of `axe-hf demo`, and the address it gave."""
    command = [sys.executable, "-m", "axe_hf", "demo", folders / "model", "--port", free_port()]
    command += ["--teacher", folders / "teacher", "--examples", folders / "examples.tsv"]
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*map(str, command)], env=environment, **pipes)
    line = process.stdout.readline()
    assert line.startswith("Open http://127.0.0.1:"), process.stderr.read()
    yield process, line.split()[1]
    process.kill()
    process.communicate()


class Page:
    """A Chromium that can reach this machine only."""

    def __init__(self, address):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        words = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]
        words += ["--window-size=1400,1060"]
        words += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        for word in words:
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.address = address
        self.open()

    def open(self, query=""):
        self.driver.get(self.address + query)
        self.wait(lambda: self.all("#axe-said"))

    def wait(self, is_so):
        from selenium.webdriver.support.wait import WebDriverWait

        kinds = _errors()
        return WebDriverWait(self.driver, 60, 0.2, kinds).until(lambda driver: is_so())

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        return self.all(selector)[0].text

    def type(self, selector, text):
        from selenium.webdriver.common.keys import Keys

        (box,) = self.all(selector)
        box.send_keys(Keys.CONTROL + "a")
        box.send_keys(Keys.BACKSPACE + text)

    def translate(self, text, reference=""):
        self.type("#axe-source textarea", text)
        self.type("#axe-reference textarea, #axe-reference input", reference)
        self.all("#axe-button")[0].click()

    def set_slider(self, name, number):
        from selenium.webdriver.common.keys import Keys

        (box,) = self.all(f"#axe-{name} input[type=number]")
        box.send_keys(Keys.CONTROL + "a")
        box.send_keys(str(number) + Keys.TAB)


def _errors():
    """A panel may be replaced while it is read."""
    from selenium.common.exceptions import StaleElementReferenceException

    return [StaleElementReferenceException, IndexError]


@pytest.fixture(scope="module")
def page(served):
    page = Page(served[1])
    yield page
    page.driver.quit()


def test_a_sentence_that_is_typed_is_translated_and_explained(page, says, tmp_path):
    page.translate("two one four", "zwei eins vier")
    page.wait(lambda: page.text("#axe-said") == says("two one four"))
    page.wait(lambda: len(page.all("#axe-alignment tbody tr")) > 1)
    assert len(page.all("#axe-passes tr")) == 1
    assert "●" in page.text("#axe-alignment")
    assert page.all("#axe-other") and "word by word" in page.text("body")
    picture = tmp_path / "demo.png"
    page.driver.save_screenshot(str(picture))
    assert picture.stat().st_size > 20_000


def test_passes_and_lengths_follow_the_sliders(page, says):
    page.translate("one three")
    page.set_slider("iterations", 4)
    page.wait(lambda: len(page.all("#axe-passes tr")) == 4)
    page.set_slider("candidates", 3)
    page.wait(lambda: len(page.all("#axe-lengths tr")) == 1 + 3)
    how = {"num_iterations": 4, "num_length_candidates": 3}
    assert page.text("#axe-said") == says("one three", **how)
    assert page.text("#axe-lengths tr.axe-best").endswith(says("one three", **how))
    assert page.all("#axe-passes td.axe-masked")
    page.set_slider("iterations", 1), page.set_slider("candidates", 1)
    page.wait(lambda: len(page.all("#axe-passes tr")) == 1)
    page.wait(lambda: len(page.all("#axe-lengths tr")) == 2)


def test_an_example_is_translated_when_it_is_clicked(page, says):
    text, reference = PAIRS[1]
    (button,) = [button for button in page.all("button") if button.text.strip() == text]
    button.click()
    page.wait(lambda: page.text("#axe-said") == says(text))
    box = page.all("#axe-reference textarea, #axe-reference input")[0]
    assert box.get_attribute("value") == reference


def test_errors_are_said_on_the_page(page, says):
    page.translate("")
    page.wait(lambda: "nothing to translate" in page.text("[role=alert]"))
    page.translate("one " * 40)
    page.wait(lambda: "this model reads 24 tokens" in page.text("[role=alert]"))
    page.translate("one", "two " * 40)
    page.wait(lambda: "this model writes 12 at most" in page.text("[role=alert]"))
    assert page.text("#axe-said") == says("one")


def test_tags_that_are_typed_are_text(page, says):
    evil = "<b id=evil>"
    page.translate(evil, "<i>{{1}}")
    page.wait(lambda: page.text("#axe-said") == says(evil))
    page.wait(lambda: len(page.all("#axe-alignment tbody tr")) > 1)
    rows = [row.text.strip() for row in page.all("#axe-alignment tbody th")]
    assert {"<", "i", "{", "}", "1"} <= {row.strip("·") for row in rows}
    assert not page.all("#evil") and not page.all("#axe-alignment i")


def test_the_page_asks_no_other_machine(page):
    import json

    page.open("?__theme=dark")
    assert "dark" in page.all("body")[0].get_attribute("class")
    events = (json.loads(e["message"])["message"] for e in page.driver.get_log("performance"))
    sent = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert sent and not [
        url for url in sent if not url.startswith((page.address, "data:", "blob:"))
    ]


def test_ctrl_c_closes_the_page(served):
    process, _ = served
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "axe-hf demo: stopped. The page is closed." in errors


def test_the_space_serves_the_model_that_its_variable_names(folders, repository):
    port = free_port()
    environment = os.environ | {"PYTHONPATH": str(repository), "MODEL_ID": str(folders / "model")}
    environment |= {"GRADIO_SERVER_PORT": str(port)}
    app = [sys.executable, str(repository / "examples" / "space" / "app.py")]
    process = subprocess.Popen(app, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert str(port) in process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200
    finally:
        process.kill()
        process.communicate()
    environment.pop("MODEL_ID")
    done = subprocess.run(app, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "MODEL_ID" in done.stderr
