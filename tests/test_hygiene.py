import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.configuration.types import Clean
from bettersynth.hygiene import clean_caption, clean_text
from bettersynth.records import text_of


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat on a table, stock photo", "a cat on a table"),
        ("a cat on a table - royalty free stock photos.", "a cat on a table"),
        ("a cat | Getty Images", "a cat"),
        ("sunset over the sea © john smith 2012", "sunset over the sea"),
        ("the the cat sat sat down", "the cat sat down"),
        ("a cat cat, stock photo photo", "a cat"),
        ("livestock photo", "livestock photo"),
        ("a stock photo of a cat", "a stock photo of a cat"),
        ("blu - ray disc, 2012", "blu - ray disc, 2012"),
        ("a cat (black) stock photo", "a cat (black)"),
    ],
)
def test_repairs(caption, expected):
    assert clean_caption(caption, Clean()) == (expected, None)


@pytest.mark.parametrize(
    ("caption", "parameters", "reason"),
    [
        ("", {}, "empty caption"),
        ("stock photo", {}, "empty caption"),
        ("© john smith", {}, "empty caption"),
        ("... - !", {}, "empty caption"),
        ("I'm sorry, but I cannot help with that", {}, "refusal"),
        ("I’m sorry, I can't see the image", {}, "refusal"),
        ("red car", {"min_words": 3}, "too few words"),
        ("a red car on a road", {"max_words": 5}, "too many words"),
        ("dog cat dog cat dog cat", {"max_repetition": 0.5}, "too repetitive"),
    ],
)
def test_drops_with_a_reason(caption, parameters, reason):
    assert clean_caption(caption, Clean(**parameters)) == (None, reason)


def test_limits_are_included():
    assert clean_caption("dog cat dog cat", Clean(min_words=4, max_words=4, max_repetition=0.5))[1] is None


def test_repeats_can_be_left():
    assert clean_caption("had had enough", Clean(collapse_repeats=False))[0] == "had had enough"


def test_clean_text_keeps_its_bytes():
    for text in (text_of("a cat on a table"), "<__dj__image> a cat on a table <|__dj__eoc|>"):
        assert clean_text(text, Clean()) == (text, None)


def test_text_is_cleaned_chunk_by_chunk():
    text = text_of("a cat, stock photo") + "<__dj__image> a dog <|__dj__eoc|>"

    assert clean_text(text, Clean())[0] == "<__dj__image>\na cat <|__dj__eoc|><__dj__image> a dog <|__dj__eoc|>"
    assert clean_text(text + text_of("stock photo"), Clean()) == (None, "empty caption")


@given(
    st.lists(
        st.sampled_from(["cat", "dog", "stock", "photo", "stock photo", "©", "royalty free", ",", "-", ".", "the"])
    ).map(" ".join)
)
def test_cleaning_twice_changes_nothing(caption):
    cleaned, _ = clean_caption(caption, Clean())

    if cleaned is not None:
        assert clean_caption(cleaned, Clean()) == (cleaned, None)
