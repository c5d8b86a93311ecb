"""Take the README's picture of the page: `axe-hf demo` of a phrasebook model, in Chromium.

    pip install "axe-hf[test-demo]" && apt-get install chromium-driver
    axe-hf quickstart --output-dir first_models
    axe-hf train --model-name-or-path first_models/cross_entropy --output-dir first_models/more \
      --source-lang en --target-lang de --train-file first_models/data/train.jsonl \
      --training-loss axe --axe-delta 2 --masking uniform --learning-rate 1e-3 \
      --max-tokens-per-batch 4096 --train-minutes 16
    python examples/figures/demo.py first_models/more first_models/autoregressive

Takes half a minute on any CPU, writes examples/figures/demo.png, and reaches no network.
"""

import argparse
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from axe_hf import create_demo

EXAMPLES = [
    (
        "Can you tell me why he wanted to buy a dress last week?",
        "Kannst du mir bitte sagen, warum er letzte Woche ein Kleid kaufen wollte?",
    ),
    ("When the sun shines, my sister goes swimming.", "Wenn die Sonne scheint, geht sie baden."),
    ("They played football because the weather was nice.", ""),
]
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model")
parser.add_argument("teacher")
parser.add_argument("--output", default=Path(__file__).with_suffix(".png"))
parser.add_argument("--title", default="axe_hf, trained on its phrasebook")
parser.add_argument("--theme", default="light", choices=("light", "dark"))
parser.add_argument("--num_iterations", type=int, default=4)
options = parser.parse_args()


def load(name):
    """A model and its tokenizer."""
    return AutoModelForSeq2SeqLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)


decoding = {"num_iterations": options.num_iterations, "num_length_candidates": 3}
shown = {"teacher": load(options.teacher), "title": options.title, "examples": EXAMPLES}
page = create_demo(*load(options.model), **shown, **decoding)
_, address, _ = page.launch(quiet=True, prevent_thread_lock=True, footer_links=[])

chrome = webdriver.ChromeOptions()
chrome.binary_location = "/usr/bin/chromium"
for word in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,1100"):
    chrome.add_argument(word)
driver = webdriver.Chrome(options=chrome, service=Service("/usr/bin/chromedriver"))
driver.get(f"{address}?__theme={options.theme}")
WebDriverWait(driver, 60).until(lambda _: driver.find_elements("id", "axe-alignment"))
# A second time, when all is warm: the first one's milliseconds are those of a start.
driver.find_element("id", "axe-button").click()
time.sleep(5)
driver.find_element("css selector", "body").click()
height = driver.execute_script("return document.querySelector('main').scrollHeight") + 16
driver.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride",
    {"width": 1280, "height": height, "deviceScaleFactor": 1, "mobile": False},
)
driver.save_screenshot(str(options.output))
driver.quit()
page.close(verbose=False)
print(f"{options.output}: {Path(options.output).stat().st_size / 1024:.0f} KiB")
