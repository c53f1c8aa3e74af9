from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from llm_serving.stop_words import StopWords

LETTERS = st.text(alphabet="abc ", max_size=25)
WORDS = st.lists(st.text(alphabet="abc ", min_size=1, max_size=4), max_size=4)


def run(words: tuple[str, ...], chunks: list[str]) -> tuple[str, str | None]:
    matcher, out = StopWords(words), ""
    for chunk in chunks:
        found = matcher.feed(chunk)
        out += found.text
        if found.stop_word is not None:
            return out, found.stop_word
    found = matcher.feed("", final=True)
    return out + found.text, found.stop_word


def expected(words: tuple[str, ...], text: str) -> str:
    """The text before the stop word that is complete first."""
    for end in range(1, len(text) + 1):
        ending = [word for word in words if text[:end].endswith(word)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


@given(words=WORDS, text=LETTERS, cuts=st.lists(st.integers(0, 25), max_size=6))
def test_text_up_to_the_first_stop_word_however_chunked(
    words: list[str], text: str, cuts: list[int]
) -> None:
    places = [0, *sorted(cuts), len(text)]
    chunks = [text[a:b] for a, b in itertools.pairwise(places)]
    out, word = run(tuple(words), chunks)
    assert out == expected(tuple(words), text)
    assert (word is not None) == (out != text or any(w in text for w in words))


def test_only_what_could_become_a_stop_word_is_held_back() -> None:
    matcher = StopWords(("END",))
    assert matcher.feed("some E").text == "some "
    assert matcher.feed("N").text == ""
    assert matcher.feed("A").text == "ENA"
    assert matcher.feed("EN", final=True).text == "EN"


def test_no_words_no_delay() -> None:
    assert StopWords(()).feed("x").text == "x"
