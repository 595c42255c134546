"""Vocabularies: what is encoded is decoded, and what is not known stays within bounds."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cylstm
from cylstm import files
from cylstm.data import Vocabulary

words = st.text("abxyzüß€,", min_size=1, max_size=5)


@settings(deadline=None)
@given(st.text())
def test_a_text_of_known_characters_comes_back(text):
    vocabulary = Vocabulary.of_characters(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert ids.dtype == np.int32
    assert len(vocabulary) == 2 + len(set(text) - {"\ufffd"})
    assert (ids < len(vocabulary)).all()


@settings(deadline=None)
@given(st.lists(words, max_size=20))
def test_a_sentence_of_known_words_comes_back(sentence):
    vocabulary = Vocabulary.of_words([sentence])
    assert vocabulary.decode(vocabulary.encode(sentence)) == " ".join(sentence)
    assert vocabulary.encode(" ".join(sentence)).tolist() == vocabulary.encode(sentence).tolist()


@settings(deadline=None)
@given(st.lists(words), st.sampled_from(["characters", "words"]), st.text())
def test_a_config_survives_json(known, kind, text):
    vocabulary = Vocabulary(kind, sorted(set(known) - {"<unk>", "\ufffd"}))
    theirs = Vocabulary.from_config(json.loads(json.dumps(vocabulary.config)))
    assert (theirs.kind, theirs.symbols) == (vocabulary.kind, vocabulary.symbols)
    assert theirs.encode(text).tolist() == vocabulary.encode(text).tolist()


def test_words_are_numbered_by_frequency_then_alphabet():
    sentences = ["b a c", ["c", "d"], "c b a <unk>"]
    assert Vocabulary.of_words(sentences).symbols == ("", "<unk>", "c", "a", "b", "d")
    assert Vocabulary.of_words(sentences, min_frequency=2, max_size=2).symbols == ("", "<unk>", "c", "a")
    assert Vocabulary.of_words(sentences, min_frequency=9).symbols == ("", "<unk>")


def test_unknown_and_padding():
    vocabulary = Vocabulary.of_words(["so it goes"])
    ids = vocabulary.encode("so it ends <unk>")
    assert ids[2:].tolist() == [vocabulary.UNKNOWN] * 2
    padded = np.pad(ids, (0, 3), constant_values=vocabulary.PADDING)
    assert vocabulary.decode(padded) == "so it <unk> <unk>"
    assert vocabulary.encode("").shape == (0,)
    assert vocabulary.decode([]) == ""


def test_a_model_file_keeps_it(tmp_path):
    vocabulary = Vocabulary.of_characters("naïve\n")
    cylstm.save(cylstm.GRU(1, 1), tmp_path / "m", extra={"vocabulary": vocabulary.config})
    _, extra = files.load_with_extra(tmp_path / "m")
    assert Vocabulary.from_config(extra["vocabulary"]).symbols == vocabulary.symbols


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Vocabulary.of_characters(["a"]), TypeError, "text: expected a str, got list"),
        (lambda: Vocabulary.of_words("a b"), TypeError, r"sentences: expected several, got a str; pass \["),
        (
            lambda: Vocabulary.of_words(["a", ["b", 3]]),
            TypeError,
            r"sentences\[1\]: expected .* got int",
        ),
        (
            lambda: Vocabulary.of_words(["a"], min_frequency=0),
            ValueError,
            "min_frequency: expected a positive int, got 0",
        ),
        (
            lambda: Vocabulary.of_words(["a"], max_size=-1),
            ValueError,
            "max_size: expected a positive int, got -1",
        ),
        (lambda: Vocabulary("letters", "ab"), ValueError, "kind: expected 'characters' or 'words'"),
        (
            lambda: Vocabulary("characters", "aba"),
            ValueError,
            "known: .* once, got 'a' again",
        ),
        (lambda: Vocabulary("words", ["<unk>"]), ValueError, "got '<unk>' again"),
        (lambda: Vocabulary("words", ["a"]).encode(3), TypeError, "text: expected a str .* got int"),
        (lambda: Vocabulary("words", ["a"]).decode([3]), ValueError, "ids: expected 0 to 2, got 3 to 3"),
        (lambda: Vocabulary("words", ["a"]).decode([-1]), ValueError, "ids: expected 0 to 2, got -1"),
        (
            lambda: Vocabulary("words", ["a"]).decode([[1]]),
            ValueError,
            r"expected a vector of ints, got \(1",
        ),
        (lambda: Vocabulary("words", ["a"]).decode([0.5]), ValueError, "ids: expected a vector of ints"),
        (lambda: Vocabulary.from_config([]), ValueError, "vocabulary: expected kind and known"),
        (
            lambda: Vocabulary.from_config({"kind": "words"}),
            ValueError,
            "vocabulary: expected kind and known",
        ),
        (lambda: Vocabulary.from_config({"kind": [], "known": []}), ValueError, "expected a str as kind"),
        (lambda: Vocabulary.from_config({"kind": "words", "known": "ab"}), ValueError, "a list as known"),
        (lambda: Vocabulary.from_config({"kind": "words", "known": [1]}), ValueError, "expected only str"),
        (lambda: Vocabulary.from_config({"kind": "words", "known": ["a", "a"]}), ValueError, "'a' again"),
    ],
)
def test_non_text_is_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()
