import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.core.records import text_of
from bettersynth.sources.cleaning import Cleaned, Cleaning, clean_caption, clean_text


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
        ("a cat<eos> on a table <|im_end|>", "a cat on a table"),
        ("</s> a cat <image> <start_of_turn>", "a cat"),
        ("a dog and a cat and a cat and a cat", "a dog and a cat"),
        ("The man the man is on is on a horse", "The man is on a horse"),
        ("a cat <3 you", "a cat <3 you"),
        ("一只狗一只狗一只狗在跑", "一只狗在跑"),
        ("妈妈和狗狗", "妈妈和狗狗"),
        ("哈哈哈哈", "哈哈"),
        ("red red 红色的车 红色的车 car", "red 红色的车 car"),
    ],
)
def test_repairs(caption, expected):
    assert clean_caption(caption, Cleaning())[:2] == (expected, None)


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
        ("dog cat red dog cat", {"max_repetition": 0.3}, "too repetitive"),
        ("on a dog, on a cat, on a dog", {"max_repetition": 0.1, "repetition_words": 2}, "too repetitive"),
        ("<eos> <|im_end|>", {}, "empty caption"),
        ("狗狗狗狗狗狗", {"max_repetition": 0.5, "collapse_repeats": 0}, "too repetitive"),
        ("一只狗", {"min_words": 4}, "too few words"),
        ("Unfortunately, I do not see a picture", {}, "refusal"),
    ],
)
def test_drops_with_a_reason(caption, parameters, reason):
    assert clean_caption(caption, Cleaning(**parameters)) == Cleaned(None, reason)


def test_limits_are_included():
    limits = Cleaning(min_words=4, max_words=4, max_repetition=0.5, collapse_repeats=0)

    assert clean_caption("dog cat dog cat", limits).text == "dog cat dog cat"


def test_repeats_can_be_left():
    assert clean_caption("had had enough", Cleaning(collapse_repeats=0)).text == "had had enough"
    assert clean_caption("had had a dog a dog", Cleaning(collapse_repeats=1)).text == "had a dog a dog"
    assert clean_caption("a <eos> b", Cleaning(remove_control=False)).text == "a <eos> b"


def test_repairs_are_named():
    repairs = clean_caption("a a cat <eos> , stock photo", Cleaning()).repairs

    assert repairs == {"control token", "repetition", "tail"}
    assert clean_caption("a cat", Cleaning()).repairs == frozenset()
    assert clean_text(text_of("a cat, stock photo") + text_of("a a dog"), Cleaning()).repairs == {"repetition", "tail"}


def test_clean_text_keeps_its_bytes():
    for text in (text_of("a cat on a table"), "<__dj__image> a cat on a table <|__dj__eoc|>"):
        assert clean_text(text, Cleaning()) == Cleaned(text)


def test_text_is_cleaned_chunk_by_chunk():
    text = text_of("a cat, stock photo") + "<__dj__image> a dog <|__dj__eoc|>"

    assert clean_text(text, Cleaning())[0] == "<__dj__image>\na cat <|__dj__eoc|><__dj__image> a dog <|__dj__eoc|>"
    assert clean_text(text + text_of("stock photo"), Cleaning()) == Cleaned(None, "empty caption")


PIECES = [
    "cat",
    "dog",
    "stock",
    "photo",
    "stock photo",
    "©",
    "royalty free",
    ",",
    "-",
    ".",
    "the",
    "<eos>",
    "a dog",
    " ",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join))
def test_cleaning_twice_changes_nothing(caption):
    cleaned = clean_caption(caption, Cleaning())

    if cleaned.text is not None:
        assert clean_caption(cleaned.text, Cleaning()) == Cleaned(cleaned.text)
