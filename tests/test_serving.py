import asyncio
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from starlette.testclient import TestClient

from axe_hf import CmlmConfig, CmlmForConditionalGeneration, train_tokenizer, translate
from axe_hf.documents import split_document
from axe_hf.serving import Batching, Limits, ServedModel, create_app
from axe_hf.serving.batching import BatchedModel, Decoding, QueueFullError
from axe_hf.serving.reading import Directions, UnknownLanguageError, split_passage

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eins", "zwei", "drei", "vier"]
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def make_trained(directions=None, seed=0, **changes):
    """A small model with random weights, far from zero so that it says different things."""
    sentences = [f"{first} {second}." for first in WORDS for second in WORDS]
    tokenizer = train_tokenizer(sentences, vocab_size=300)
    tokenizer.add_tokens([">>de<<", ">>fr<<"])
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "max_source_length": 24, "max_target_length": 24}
    sizes |= {"init_std": 0.5, "tie_word_embeddings": False, "directions": directions}
    torch.manual_seed(seed)
    config = CmlmConfig(vocab_size=len(tokenizer), **sizes | changes)
    return CmlmForConditionalGeneration(config).eval(), tokenizer


@pytest.fixture(scope="module")
def trained():
    return make_trained()


@pytest.fixture(scope="module")
def served(trained):
    return ServedModel(*trained, ["en-de"], name="small")


@pytest.fixture
def make_client(served):
    """A client of a server in this process."""
    clients = []

    def make(models=None, **options):
        app = create_app(models or [served], **options)
        clients.append(TestClient(app, raise_server_exceptions=True))
        return clients[-1].__enter__()

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client):
    return make_client()


def ask(client, q="one two.", source="en", target="de", **fields):
    return client.post("/translate", json={"q": q, "source": source, "target": target, **fields})


def refused(response, status, *words):
    """The error of an answer, which must be in LibreTranslate's form."""
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert [*response.json()] == ["error"] and isinstance(error, str) and error
    for word in words:
        assert word in error
    return error


# LibreTranslate's interface.


def test_a_sentence_is_translated_as_translate_does(client, trained):
    response = ask(client, "three four five.")
    assert response.status_code == 200
    assert response.json() == {"translatedText": translate(*trained, ["three four five."])[0]}


def test_a_list_is_answered_by_a_list(client, trained):
    texts = ["one two.", "", "five six seven."]
    assert ask(client, texts).json() == {"translatedText": translate(*trained, texts)}


def test_a_form_is_answered_as_json_is(client):
    form = client.post("/translate", data={"q": "one two.", "source": "en", "target": "de"})
    assert form.json() == ask(client).json()
    in_address = client.post("/translate?q=one+two.&source=en&target=de")
    assert in_address.json() == ask(client).json()


def test_a_form_with_several_texts_is_answered_by_a_list(client, trained):
    body = "q=one+two.&q=three.&source=en&target=de"
    response = client.post("/translate", content=body, headers=FORM)
    assert response.json()["translatedText"] == translate(*trained, ["one two.", "three."])


def test_line_breaks_stay_and_sentences_are_translated_by_themselves(client, trained):
    text = "  One two. Three four.\n\n\nFive six.\r\n\tseven\n"
    document = split_document(text, "en")
    assert len(document.sentences) == 4
    expected = document.joined(translate(*trained, document.sentences))
    assert ask(client, text).json()["translatedText"] == expected


def test_tags_of_html_stay(client, trained):
    text = '<p class="x">one two. <b>three</b></p><script>four();</script><!-- five -->&lt;six'
    passage = split_passage(text, "en", is_html=True)
    assert passage.sentences == ["one two.", "three", "<six"]
    expected = '<p class="x">a <b>b</b></p><script>four();</script><!-- five -->&lt;'
    assert passage.joined(iter("ab<")) == expected
    translations = translate(*trained, passage.sentences)
    found = ask(client, text, format="html").json()["translatedText"]
    assert found == passage.joined(iter(translations))


def test_a_tag_ends_where_it_does_for_a_browser():
    for tag in ('<a title="x > y">', "<a b='>' c = \">\" d=e>", "<p don't>", '<p a="b>', "<br/>"):
        assert split_passage(f"{tag}it's<i>", "en", is_html=True).parts[1] == tag
    assert split_passage("a < b, c > d =", "en", is_html=True).sentences == ["a < b, c > d ="]


BITS = ["<!--", "<script>", "</", "&#x", "<code ", '<a b="', "<a b='c'", "<a ="]


@pytest.mark.parametrize("bit", BITS)
def test_what_is_not_closed_takes_no_longer_the_more_there_is_of_it(bit):
    start = time.process_time()
    passage = split_passage(bit * (300_000 // len(bit)), "en", is_html=True, split_sentences=False)
    assert time.process_time() - start < 2  # quadratic: minutes
    assert passage.joined(iter(passage.sentences))


def test_of_html_a_number_without_a_character_is_none(client):
    for digits in ("9" * 5000, "0" * 5000 + "65", "1114112"):
        passage = split_passage(f"<p>&#{digits};x", "en", is_html=True)
        assert passage.sentences == ["\ufffdx"]
    assert ask(client, f"&#{'9' * 5000};", format="html").status_code == 200


def test_alternatives_are_other_translations(client, trained):
    found = ask(client, alternatives=3).json()
    assert 1 <= len(found["alternatives"]) <= 3
    assert len({found["translatedText"], *found["alternatives"]}) == len(found["alternatives"]) + 1
    several = ask(client, ["one.", "two."], alternatives="2").json()["alternatives"]
    assert [isinstance(others, list) for others in several] == [True, True]


def test_auto_is_the_only_source_there_is(client):
    found = ask(client, source="auto").json()
    assert found["detectedLanguage"] == {"confidence": 0.0, "language": "en"}
    assert found["translatedText"] == ask(client).json()["translatedText"]
    assert len(ask(client, ["one.", "two."], source="auto").json()["detectedLanguage"]) == 2


def test_languages_settings_and_health_are_libretranslates(client):
    languages = client.get("/languages").json()
    assert languages[0] == {"code": "en", "name": "English", "targets": ["de"]}
    assert [language["code"] for language in languages] == ["en", "de"]
    settings = client.get("/frontend/settings").json()
    assert settings["charLimit"] == 10000 and not settings["keyRequired"]
    assert settings["language"]["target"] == {"code": "de", "name": "German"}
    assert client.get("/health").json() == {"status": "ok"}
    assert client.head("/health").status_code == 200


def test_what_libretranslate_has_besides_is_refused_in_its_form(client):
    refused(client.post("/detect", data={"q": "one"}), 400, "detection", "set source")
    refused(client.post("/suggest", data={"q": "one", "s": "eins"}), 403, "Suggestions")
    refused(client.post("/translate_file"), 403, "Files")


def test_the_page_of_the_interface_knows_every_setting(client):
    schema = client.get("/openapi.json").json()
    assert client.get("/spec").json() == schema
    body = schema["paths"]["/v1/translate"]["post"]["requestBody"]["content"]
    fields = body["application/json"]["schema"]["properties"]
    assert {"num_iterations", "schedule", "num_return_sequences", "history"} <= {*fields}
    assert "compile" not in fields
    page = client.get("/docs").text
    assert all(f"<code>{name}</code>" in page for name in fields) and "POST /translate" in page
    # No script, no picture, no other machine.
    assert re.findall(r"(?:src|href|url|import|script)\W+[\w.]*", page) == ['href="openapi.json']
    assert client.get("/redoc").status_code == 404
    assert {*schema["paths"]["/translate"]["post"]["requestBody"]["content"]} == {
        *JSON.values()
    } | {*FORM.values()}


# Ours.


def v1(client, q="one two.", **fields):
    return client.post("/v1/translate", json={"q": q, **fields})


def test_v1_gives_candidates_scores_and_passes(client, trained):
    settings = {"num_iterations": 3, "num_length_candidates": 4, "num_return_sequences": 2}
    found = v1(client, "one two. Three.", scores=True, history=True, **settings).json()
    assert (found["model"], found["source_lang"], found["target_lang"]) == ("small", "en", "de")
    (text,) = found["translations"]
    first, second = text["sentences"]
    assert [first["source"], second["source"]] == ["one two.", "Three."]
    best = translate(*trained, ["one two.", "Three."], num_iterations=3, num_length_candidates=4)
    assert [s["candidates"][0]["text"] for s in text["sentences"]] == best
    assert text["text"] == " ".join(best)
    assert len(first["candidates"]) == 2 and len(first["passes"]) == 4
    assert first["candidates"][0]["score"] >= first["candidates"][1]["score"]
    assert {*first["passes"][0]["tokens"]} == {"_"} and "_" not in first["passes"][3]["tokens"]
    plain = v1(client).json()["translations"][0]["sentences"][0]
    assert "passes" not in plain and "score" not in plain["candidates"][0]


def test_v1_takes_every_setting_of_the_command_line_but_how_pytorch_computes(client):
    settings = {"schedule": "cosine", "confidence_threshold": 0.5, "early_stop": True}
    settings |= {"collapse_repeats": True, "min_length": 2, "max_length": 9}
    settings |= {"length_multiplier": 1.5, "length_score_weight": 0, "num_iterations": 2}
    settings |= {"do_sample": True, "temperature": 0.5}
    assert v1(client, **settings).status_code == 200
    assert v1(client, max_length=10**400).json() == v1(client).json()
    refused(v1(client, compile=True), 422, "`compile`", "where the server is started")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_iterations": 0}, "num_iterations"),
        ({"num_iterations": "3"}, "num_iterations"),
        ({"num_iterations": 1.5}, "num_iterations"),
        ({"num_iterations": True}, "num_iterations"),
        ({"num_iterations": 10**30}, "num_iterations"),
        ({"num_length_candidates": 10**6}, "num_length_candidates"),
        ({"num_iterations": 100, "num_length_candidates": 2}, "num_length_candidates"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"schedule": "square"}, "schedule"),
        ({"length_multiplier": -1}, "length_multiplier"),
        ({"temperature": 0.5}, "temperature"),
        ({"min_length": 9, "max_length": 3}, "min_length"),
        ({"scores": "yes"}, "scores"),
        ({"num_iteration": 3}, "num_iteration"),
        ({"x" * 1000: 3}, "xxx"),
        ({"q": 3}, "q"),
        ({"length_multiplier": 1e308}, "length_multiplier"),
        ({"length_score_weight": -1e308}, "length_score_weight"),
        ({"length_score_weight": 10**400}, "length_score_weight"),
        ({"temperature": 10**400, "do_sample": True}, "temperature"),
        ({"target_lang": "fr"}, "fr"),
        ({"source_lang": "fr"}, "fr"),
    ],
)
def test_v1_names_the_field_that_is_wrong(client, fields, named):
    assert len(refused(v1(client, **fields), 422, named)) < 600


def test_lines_may_stay_whole(client, trained):
    text = "One two. Three four."
    found = v1(client, text, split_sentences=False).json()["translations"][0]
    assert found["text"] == translate(*trained, [text])[0] and len(found["sentences"]) == 1


def test_a_sentence_that_is_cut_is_told_of(client, trained):
    text = " ".join(WORDS * 3)
    assert v1(client, ["one.", text]).json()["translations"][1]["sentences"][0]["is_cut"]
    found = ask(client, text).json()
    assert found["translatedText"] == translate(*trained, [text])[0]
    assert found["warning"] == "1 sentences are too long for the model and were cut"
    assert "warning" not in ask(client).json()


def test_the_settings_of_the_server_are_those_of_a_call_that_has_none(trained, make_client):
    own = {"num_iterations": 3, "num_length_candidates": 2}
    client = make_client([ServedModel(*trained, ["en-de"], generation=own)])
    found = v1(client, history=True).json()["translations"][0]
    assert len(found["sentences"][0]["passes"]) == 4
    assert ask(client).json()["translatedText"] == translate(*trained, ["one two."], **own)[0]
    assert found["text"] == translate(*trained, ["one two."], **own)[0]


# Several models and directions.


def test_each_direction_has_its_model(make_client):
    there, back = make_trained(), make_trained(seed=1)
    models = [ServedModel(*there, ["en-de"], "there"), ServedModel(*back, ["de-en"], "back")]
    client = make_client(models)
    assert ask(client).json()["translatedText"] == translate(*there, ["one two."])[0]
    found = ask(client, source="de", target="en").json()["translatedText"]
    assert found == translate(*back, ["one two."])[0] != translate(*there, ["one two."])[0]
    refused(ask(client, source="de", target="de"), 400, "de is not available", "en")
    assert v1(client, source_lang="de", target_lang="en").json()["model"] == "back"
    refused(v1(client), 422, "`target_lang`", "de, en")


def test_a_model_of_several_targets_gets_the_tag_of_the_one_asked_for(make_client):
    model, tokenizer = make_trained(["en-de", "en-fr"])
    client = make_client([ServedModel(model, tokenizer)])
    for target in ("de", "fr"):
        expected = translate(model, tokenizer, [f">>{target}<< one two."])[0]
        assert ask(client, target=target).json()["translatedText"] == expected
    assert ask(client, "\u200b", target="fr").json()["translatedText"] == ""


def test_two_models_of_one_direction_and_unknown_directions_are_refused(trained):
    one, other = ServedModel(*trained, ["en-de"], "a"), ServedModel(*trained, ["en-de"], "b")
    with pytest.raises(ValueError, match="Two models translate en-de"):
        create_app([one, other])
    with pytest.raises(ValueError, match="not known which languages model translates"):
        create_app([ServedModel(*trained)])
    with pytest.raises(ValueError, match="trained for en-fr, not for en-de"):
        create_app([ServedModel(*make_trained(["en-fr"]), ["en-de"])])
    with pytest.raises(ValueError, match="at least one"):
        create_app([])
    for name in ("api_keys", "cors_origins"):
        with pytest.raises(TypeError, match=f"`{name}` must be a list"):
            create_app([one], **{name: "secret"})


def test_languages_are_found_however_they_are_written():
    directions = Directions({1: [("en", "zh-CN")], 2: [("de", "zh-CN"), ("pt_BR", "en")]})
    assert directions.find("EN_us", "zh") == ("en", "zh-CN", 1)
    assert directions.find("auto", "en") == ("pt_BR", "en", 2)
    with pytest.raises(UnknownLanguageError, match="source must be one of en, de"):
        directions.find("auto", "zh-cn")
    with pytest.raises(UnknownLanguageError, match="'xx' is not supported"):
        directions.find("xx", "en")


# Limits, keys, pages of other origins.


def test_what_is_over_a_limit_is_answered_413(make_client):
    limits = Limits(max_characters=50, max_items=3, max_body_bytes=500)
    client = make_client(limits=limits)
    assert ask(client, "x" * 50).status_code == 200
    refused(ask(client, "x" * 51), 413, "51", "50")
    refused(ask(client, ["x" * 30, "x" * 30]), 413, "60")
    refused(v1(client, "x" * 51), 413)
    refused(ask(client, ["x"] * 4), 413, "4", "3")
    refused(ask(client, "x" * 600), 413, "500 bytes")
    chunks = (b"q=" + b"x" * 100 for _ in range(9))
    refused(client.post("/translate", content=chunks, headers=FORM), 413, "500 bytes")
    refused(client.post("/health", content=b"x" * 501), 413)


def test_who_has_no_key_is_refused(make_client):
    client = make_client(api_keys=["secret", "other"])
    refused(ask(client), 400, "API key")
    refused(ask(client, api_key=""), 400, "API key")
    refused(ask(client, api_key="secre"), 403, "Invalid API key")
    refused(ask(client, api_key=["secret"]), 403)
    surrogate = b'{"q": "one", "source": "en", "target": "de", "api_key": "\\udc80"}'
    refused(client.post("/translate", content=surrogate, headers=JSON), 403)
    assert ask(client, api_key="other").status_code == 200
    assert v1(client, api_key="secret").status_code == 200
    bearer = {"authorization": "Bearer secret"}
    assert client.post("/v1/translate", json={"q": "one"}, headers=bearer).status_code == 200
    refused(client.get("/metrics"), 400)
    assert client.get("/metrics", headers=bearer).status_code == 200
    assert client.get("/languages").status_code == 200
    assert client.get("/frontend/settings").json()["keyRequired"] is True


def test_other_origins_are_let_in_only_if_they_are_named(make_client):
    asked = {"origin": "https://example.org", "access-control-request-method": "POST"}
    allowed = "access-control-allow-origin"
    closed, opened = make_client(), make_client(cors_origins=["https://example.org"])
    assert closed.options("/translate", headers=asked).status_code == 405
    assert allowed not in closed.get("/health", headers=asked).headers
    assert opened.options("/translate", headers=asked).status_code == 200
    assert opened.get("/health", headers=asked).headers[allowed] == "https://example.org"
    other = {**asked, "origin": "https://example.com"}
    assert allowed not in opened.get("/health", headers=other).headers


# Whatever comes, it is answered, and the server lives on.

MALFORMED = {
    "no JSON": b'{"q": "one", ',
    "half a string": b'{"q": "one',
    "not UTF-8": b'{"q": "\xff\xfe", "source": "en", "target": "de"}',
    "UTF-16": '{"q": "one", "source": "en", "target": "de"}'.encode("utf-16"),
    "nested lists": b'{"q": ' + b"[" * 10000 + b"]" * 10000 + b"}",
    "nested objects": b'{"q": ' + b'{"q": ' * 10000 + b"1" + b"}" * 10001,
    "not an object": b'["one"]',
    "a number": b"7",
    "null": b"null",
    "empty": b"",
    "NaN": b'{"q": NaN, "source": "en", "target": "de"}',
    "infinity": b'{"q": "one", "source": "en", "target": "de", "alternatives": Infinity}',
    "a long number": b'{"q": "one", "source": "en", "target": "de", "alternatives": '
    + b"9" * 5000
    + b"}",
    "a large number": b'{"q": "one", "source": "en", "target": "de", "alternatives": 1e400}',
    "q is null": b'{"q": null, "source": "en", "target": "de"}',
    "q is a number": b'{"q": 3, "source": "en", "target": "de"}',
    "q is an object": b'{"q": {"a": "b"}, "source": "en", "target": "de"}',
    "q has a null": b'{"q": ["one", null], "source": "en", "target": "de"}',
    "q is empty": b'{"q": "", "source": "en", "target": "de"}',
    "q is an empty list": b'{"q": [], "source": "en", "target": "de"}',
    "no source": b'{"q": "one", "target": "de"}',
    "no target": b'{"q": "one", "source": "en", "target": null}',
    "source is a list": b'{"q": "one", "source": ["en"], "target": "de"}',
    "an unknown source": b'{"q": "one", "source": "xx", "target": "de"}',
    "a source of surrogates": b'{"q": "one", "source": "\\ud800", "target": "de"}',
    "an unknown target": b'{"q": "one", "source": "en", "target": "en"}',
    "a name of surrogates": b'{"q": "one", "source": "en", "\\ud800": "de"}',
    "an unknown format": b'{"q": "one", "source": "en", "target": "de", "format": "pdf"}',
    "alternatives are text": b'{"q": "one", "source": "en", "target": "de", "alternatives": "x"}',
    "alternatives are true": b'{"q": "one", "source": "en", "target": "de", "alternatives": true}',
    "alternatives below 0": b'{"q": "one", "source": "en", "target": "de", "alternatives": -1}',
    "many alternatives": b'{"q": "one", "source": "en", "target": "de", "alternatives": 1000}',
}


@pytest.mark.parametrize("route", ["/translate", "/v1/translate"])
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_json_is_refused(client, name, route):
    response = client.post(route, content=MALFORMED[name], headers=JSON)
    assert 400 <= response.status_code < 500
    refused(response, response.status_code)


@pytest.mark.parametrize(
    "q",
    ["one\0two.", "\ud800 one \udfff", " ", "\u200b", "\n\n", "." * 3000, "a" * 9000, "\u202e!"],
    ids=ascii,
)
def test_strange_text_is_translated(client, trained, q):
    body = json.dumps({"q": q, "source": "en", "target": "de"})
    response = client.post("/translate", content=body, headers=JSON)
    assert response.status_code == 200
    assert isinstance(response.json()["translatedText"], str)
    html = json.dumps({"q": "<p>" + q, "source": "en", "target": "de", "format": "html"})
    assert client.post("/translate", content=html, headers=JSON).status_code == 200


def test_white_space_is_its_own_translation(client):
    for text in (" ", "\n\n", " \t\r\n "):
        assert ask(client, text).json()["translatedText"] == text


def test_of_a_key_that_stands_twice_the_last_counts(client):
    body = b'{"q": "one", "q": "one two.", "source": "en", "target": "de"}'
    assert client.post("/translate", content=body, headers=JSON).json() == ask(client).json()


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"q=one&source=en&target=de", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/xml", b"<q/>", 415),
        ("", b'{"q": "one"}', 415),
        (FORM["content-type"], b"q=%ff&source=en&target=de", 400),
        (FORM["content-type"], b"\xff", 400),
        (FORM["content-type"], b"&a=" * 2000, 400),
        (FORM["content-type"], b'{"q": "one"}', 400),
        (FORM["content-type"], b"", 400),
    ],
)
def test_other_content_is_refused(client, kind, body, status):
    response = client.post("/translate", content=body, headers={"content-type": kind})
    refused(response, status)


def test_a_megabyte_is_refused(client):
    refused(ask(client, "x" * 10**6), 413)
    refused(ask(client, "x" * 2 * 10**6), 413)
    refused(client.post("/translate", content=b"q=" + b"x" * 10**6, headers=FORM), 413)
    assert ask(client).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_other_methods_and_routes_are_refused(client, method):
    assert client.request(method, "/translate").status_code == 405
    for path in ("/nothing", "/translate/x", "/%00", "/..%2f", "/v1"):
        response = client.request(method, path)
        assert response.status_code == 404
        if method != "HEAD":
            refused(response, 404)


# Batches.


@pytest.fixture
def make_batched(trained):
    """A model behind a queue; `pause` holds it before its next batch, until `go`."""
    made = []

    def make(model=None, **options):
        batched = BatchedModel(model or trained[0], trained[1], **options)
        batched.sizes, batched.go, batched.has_paused = [], threading.Event(), threading.Event()
        answers = batched._answers

        def answers_noted(batch):
            batched.sizes.append([len(sentence.token_ids) for sentence in batch])
            batched.has_paused.set()
            assert batched.go.wait(10)
            return answers(batch)

        batched._answers = answers_noted
        made.append(batched)
        return batched

    yield make
    for batched in made:
        batched.go.set()
        batched.stop()


def texts_of(answers):
    return [answer.candidates[0].text for answer in answers]


def test_what_comes_while_the_model_works_shares_a_batch(make_batched, trained):
    batched = make_batched()
    sentences = [f"{a} {b}." for a in WORDS for b in WORDS[:3]]
    first = batched.submit([sentences[0]], Decoding())
    assert batched.has_paused.wait(10)
    others = [batched.submit([sentence], Decoding()) for sentence in sentences[1:]]
    assert batched.num_waiting() == len(others)
    batched.go.set()
    found = [texts_of(future.result(10))[0] for future in [first, *others]]
    assert found == [translate(*trained, [sentence])[0] for sentence in sentences]
    assert [len(sizes) for sizes in batched.sizes] == [1, len(others)]


def test_padding_changes_no_translation(make_batched, trained):
    """Short sentences beside long ones give what they give alone, with several passes too."""
    batched = make_batched(batching=Batching(max_sentences=200))
    batched.go.set()
    sentences = [" ".join(WORDS[: 1 + n % 7]) + "." * (n % 3) for n in range(40)]
    how = Decoding((("num_iterations", 3), ("num_length_candidates", 2)))
    found = texts_of(batched.submit(sentences, how).result(20))
    settings = dict(how.settings)
    assert found == [translate(*trained, [one], **settings)[0] for one in sentences]
    assert max(map(len, batched.sizes)) > 20


def test_a_long_request_does_not_keep_a_short_one_waiting(make_batched):
    batched = make_batched(batching=Batching(max_sentences=4))
    long = batched.submit(["one two."] * 60, Decoding())
    assert batched.has_paused.wait(10)
    short = batched.submit(["three."], Decoding((("num_iterations", 2),)))
    also = batched.submit(["four five."], Decoding())
    seen = []
    for name, future in (("short", short), ("also", also), ("long", long)):
        future.add_done_callback(lambda _, name=name: seen.append((name, len(batched.sizes))))
    batched.go.set()
    assert len(long.result(20)) == 60
    numbers = dict(seen)
    assert numbers["short"] <= 3 and numbers["also"] <= 3 and numbers["long"] >= 15


def test_batches_keep_the_limit_of_tokens_and_similar_lengths(make_batched):
    batched = make_batched(batching=Batching(max_tokens=60))
    batched.go.set()
    sentences = [" ".join(WORDS[: 1 + n % 11]) for n in range(60)]
    batched.submit(sentences, Decoding()).result(20)
    assert sum(map(len, batched.sizes)) == 60
    for lengths in batched.sizes:
        assert len(lengths) == 1 or max(lengths) * len(lengths) <= 60
        assert max(lengths) <= 16 or 2 * min(lengths) >= max(lengths)
    batched.sizes.clear()
    how = Decoding((("num_length_candidates", 3),))
    batched.submit(sentences, how).result(20)
    assert all(max(n) * len(n) * 3 <= 60 or len(n) == 1 for n in batched.sizes)


def test_sentences_of_different_settings_share_no_batch(make_batched, trained):
    batched = make_batched()
    first = batched.submit(["one."], Decoding())
    assert batched.has_paused.wait(10)
    hows = [Decoding((("num_iterations", 1 + n % 3),)) for n in range(9)]
    futures = [batched.submit(["one two three."], how) for how in hows]
    batched.go.set()
    first.result(10)
    for how, future in zip(hows, futures, strict=True):
        expected = translate(*trained, ["one two three."], **dict(how.settings))
        assert texts_of(future.result(10)) == expected
    assert [len(sizes) for sizes in batched.sizes] == [1, 3, 3, 3]


def test_a_cancelled_request_leaves_the_queue(make_batched):
    batched = make_batched()
    first = batched.submit(["one."], Decoding())
    assert batched.has_paused.wait(10)
    dropped, kept = (batched.submit(["two."] * n, Decoding()) for n in (5, 3))
    assert dropped.cancel() and batched.num_waiting() == 3
    batched.go.set()
    assert len(first.result(10)) == 1 and len(kept.result(10)) == 3
    assert [len(sizes) for sizes in batched.sizes] == [1, 3]


def test_a_queue_that_is_full_refuses_but_never_one_that_comes_alone(make_batched):
    batched = make_batched(max_queue=3)
    first = batched.submit(["one."] * 9, Decoding())
    assert batched.has_paused.wait(10)
    waiting = batched.submit(["one."] * 5, Decoding())
    with pytest.raises(QueueFullError, match="5 sentences wait"):
        batched.submit(["two."], Decoding())
    batched.go.set()
    assert len(first.result(10)) == 9 and len(waiting.result(10)) == 5


class Choosy:
    """A model that fails whenever a batch holds a sentence that begins with one token."""

    def __init__(self, model, token_id):
        self.model, self.token_id = model, token_id

    def __getattr__(self, name):
        return getattr(self.model, name)

    def generate(self, input_ids, **kwargs):
        if (input_ids[:, 0] == self.token_id).any():
            raise RuntimeError("secret text")
        return self.model.generate(input_ids, **kwargs)


def test_a_fault_in_a_batch_is_its_own_and_the_model_lives_on(make_batched, trained, caplog):
    model, tokenizer = trained
    batched = make_batched(Choosy(model, tokenizer("seven").input_ids[0]))
    first = batched.submit(["one."], Decoding())
    assert batched.has_paused.wait(10)
    futures = [batched.submit([text], Decoding()) for text in ("two.", "seven.", "three.")]
    batched.go.set()
    with caplog.at_level(logging.ERROR, "axe_hf.serving"):
        first.result(10)
        assert texts_of(futures[0].result(10)) == translate(model, tokenizer, ["two."])
        assert texts_of(futures[2].result(10)) == translate(model, tokenizer, ["three."])
        with pytest.raises(RuntimeError):
            futures[1].result(10)
    assert texts_of(batched.submit(["four."], Decoding()).result(10)) == translate(
        model, tokenizer, ["four."]
    )
    (record,) = caplog.records
    assert record.fields["error"] == "RuntimeError" and "secret" not in str(vars(record))


def test_a_fault_of_the_model_is_answered_500_without_its_words(trained, make_client):
    model, tokenizer = trained
    choosy = Choosy(model, tokenizer("seven").input_ids[0])
    client = make_client([ServedModel(choosy, tokenizer, ["en-de"])])
    assert "secret" not in refused(ask(client, "seven."), 500, "internal error")
    assert ask(client, "one.").status_code == 200


class Slow(Choosy):
    """A model that takes its time."""

    def generate(self, input_ids, **kwargs):
        time.sleep(0.3)
        return self.model.generate(input_ids, **kwargs)


def test_out_of_time_is_504_and_a_full_queue_429(trained, make_client):
    model = ServedModel(Slow(trained[0], -1), trained[1], ["en-de"])
    client = make_client([model], limits=Limits(timeout=0.1))
    refused(ask(client), 504, "0.1 seconds")
    client = make_client([model], limits=Limits(max_queue=2))
    with ThreadPoolExecutor(8) as pool:
        responses = [*pool.map(lambda n: ask(client, "one."), range(8))]
    statuses = [response.status_code for response in responses]
    assert {*statuses} == {200, 429}
    busy = next(response for response in responses if response.status_code == 429)
    refused(busy, 429, "Slowdown", "wait")
    assert int(busy.headers["retry-after"]) >= 1


def test_who_leaves_is_forgotten(trained):
    """An ASGI client that disconnects while its sentences wait takes them along."""
    model = ServedModel(Slow(trained[0], -1), trained[1], ["en-de"])
    app = create_app([model], batching=Batching(max_sentences=1))
    body = json.dumps({"q": "one.\n" * 20, "source": "en", "target": "de"}).encode()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        if len(messages) == 1:
            await asyncio.sleep(0.4)
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/translate", "query_string": b""}
    scope |= {"headers": [(b"content-type", b"application/json")], "http_version": "1.1"}
    start = time.monotonic()
    asyncio.run(app(scope, receive, send))
    assert sent == [] and time.monotonic() - start < 2
    text = TestClient(app).get("/metrics").text
    assert 'axe_hf_requests_total{route="/translate",status="499"} 1.0' in text
    assert 'axe_hf_queue_sentences{model="model"} 0.0' in text


# What is told of it all.


def test_metrics_count_requests_batches_and_characters(client):
    ask(client, "one two. Three.")
    ask(client, "one", target="xx")
    client.get("/secret text")
    text = client.get("/metrics").text
    for line in (
        'axe_hf_requests_total{route="/translate",status="200"} 1.0',
        'axe_hf_requests_total{route="/translate",status="400"} 1.0',
        'axe_hf_requests_total{route="other",status="404"} 1.0',
        'axe_hf_request_seconds_count{route="/translate"} 2.0',
        'axe_hf_sentences_total{model="small"} 2.0',
        'axe_hf_characters_total{model="small"} 14.0',
        'axe_hf_batch_sentences_count{model="small"} 1.0',
        'axe_hf_batch_tokens_count{model="small"} 1.0',
        'axe_hf_queue_sentences{model="small"} 0.0',
    ):
        assert line in text
    assert "secret" not in text


def test_the_log_has_no_text(client, caplog):
    with caplog.at_level(logging.DEBUG):
        ask(client, "secret one two.")
        client.post("/translate?q=secret&source=en&target=de")
        client.get("/secret?q=secret")
        client.post("/translate", content=b'{"q": "secret', headers=JSON)
        v1(client, "secret", secret=3)
    ours = [record for record in caplog.records if record.name.startswith(("axe_hf", "uvicorn"))]
    assert len(ours) == 5 and not any("secret" in str(vars(record)) for record in ours)
    assert ours[0].fields["characters"] == 15 and ours[0].fields["status"] == 200
