"""Tokenizers of the miniature's models, built from the world's own words.

Each is of the class that the real model uses and opens with the stock `from_pretrained`. Every word of the
world is one token; any other text falls back to single characters or bytes, so nothing is unknown.
"""

from __future__ import annotations

import json
import re
import string
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, CLIPTokenizerFast, GemmaTokenizerFast, GPT2TokenizerFast, LlamaTokenizerFast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Pair = tuple[str, str]
Fast = TypeVar("Fast", bound="PreTrainedTokenizerFast")

OPT_IMAGE_ID = 50265
"""Where BLIP-2 with OPT has its image token; Data-Juicer's captioning mapper writes this number into the model."""

GEMMA_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

_CHARACTERS = string.ascii_letters + string.digits + string.punctuation


def lexicon(texts: Iterable[str]) -> list[str]:
    """The distinct words of `texts`, sorted; punctuation, spaces and newlines are not words."""
    return sorted({word for text in texts for word in re.findall(r"[A-Za-z]+|\d+", text)})


def _byte_pairs(words: list[str], end_of_word: str = "", start_of_word: str = "") -> tuple[dict[str, int], list[Pair]]:
    """Byte-level BPE vocabulary and merges in which each of `words` is one token.

    `end_of_word` is CLIP's `</w>`, `start_of_word` GPT-2's `Ġ`, which stands for the space before a word. The most
    frequent pair is merged first, of equally frequent ones the alphabetically first: the same on every machine, which
    the library's own trainer is not.
    """
    spellings = [[*start_of_word, *word[:-1], word[-1] + end_of_word] for word in words]
    merges: list[Pair] = []
    while counts := Counter(pair for spelling in spellings for pair in pairwise(spelling)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spellings = [_merged(spelling, best) for spelling in spellings]
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = [*characters, *(character + end_of_word for character in characters if end_of_word)]
    vocabulary = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges)])
    return {token: number for number, token in enumerate(vocabulary)}, merges


def _merged(spelling: list[str], pair: Pair) -> list[str]:
    """The spelling with every occurrence of the pair made one symbol."""
    merged: list[str] = []
    for symbol in spelling:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def _from_byte_pairs(
    tokenizer_class: type[Fast], vocabulary: dict[str, int], merges: list[Pair], **settings: Any
) -> Fast:
    """A tokenizer of `tokenizer_class` from byte-level BPE, by way of the two files that the class reads."""
    with tempfile.TemporaryDirectory() as temporary:
        vocabulary_file, merges_file = Path(temporary, "vocab.json"), Path(temporary, "merges.txt")
        vocabulary_file.write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        merges_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tokenizer_class(str(vocabulary_file), str(merges_file), **settings)


def clip_tokenizer(words: list[str], max_length: int = 77) -> CLIPTokenizerFast:
    """CLIP's tokenizer, lower-casing; the end token has the highest id, by which OWL-ViT finds it."""
    vocabulary, merges = _byte_pairs(sorted({word.lower() for word in words}), end_of_word="</w>")
    # OWL-ViT pads with "!" (id 0) and takes a query that begins with id 0 for padding.
    first = vocabulary.pop("!")
    vocabulary = {"!": 0} | {token: n + (n < first) for token, n in vocabulary.items()}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return _from_byte_pairs(
        CLIPTokenizerFast,
        vocabulary,
        merges,
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=max_length,
    )


def opt_tokenizer(words: list[str]) -> GPT2TokenizerFast:
    """OPT's tokenizer (GPT-2's byte-level BPE, `</s>` in front) with `<image>` at `OPT_IMAGE_ID`."""
    vocabulary, merges = _byte_pairs(words, start_of_word="Ġ")
    vocabulary = {token: number + 4 for token, number in vocabulary.items()}
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | vocabulary
    unused = range(len(vocabulary), OPT_IMAGE_ID)  # never made by a merge; the library wants no holes
    vocabulary |= {f"<{number}>": number for number in unused} | {"<image>": OPT_IMAGE_ID}
    tokenizer = _from_byte_pairs(
        GPT2TokenizerFast,
        vocabulary,
        merges,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        add_prefix_space=True,
        model_max_length=256,
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    return tokenizer


def opt_words(tokenizer: GPT2TokenizerFast) -> int:
    """How many ids, from 0 on, texts can have; those up to `OPT_IMAGE_ID` are unused."""
    return min(int(token[1:-1]) for token in tokenizer.get_vocab() if token[1:-1].isdigit() and token[0] == "<")


def _word_pieces(words: list[str], specials: list[str]) -> dict[str, int]:
    """WordPiece vocabulary: specials, words, then single characters at a word's start and inside it."""
    tokens = [*specials, "\n", *words, *_CHARACTERS, *(f"##{character}" for character in _CHARACTERS)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def bert_tokenizer(words: list[str]) -> BertTokenizerFast:
    """BERT's tokenizer, lower-casing, as BLIP has it."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = _word_pieces(sorted({word.lower() for word in words}), specials)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return BertTokenizerFast(tokenizer_object=tokenizer, do_lower_case=True, model_max_length=128)


def _words_and_newlines(vocabulary: dict[str, int]) -> Tokenizer:
    """A case-keeping WordPiece tokenizer in which a newline is a token of its own.

    A word has one id whether a space, a newline or the turn's beginning stands before it.
    """
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return tokenizer


def llama_tokenizer(words: list[str]) -> LlamaTokenizerFast:
    """Llama's tokenizer class over whole words, with LLaVA's `<image>` and `<pad>`."""
    vocabulary = _word_pieces(words, ["<unk>", "<s>", "</s>", "<pad>", "<image>"])
    return LlamaTokenizerFast(
        tokenizer_object=_words_and_newlines(vocabulary),
        legacy=False,
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        model_max_length=512,
    )


def gemma_tokenizer(words: list[str]) -> GemmaTokenizerFast:
    """Gemma's tokenizer class over whole words, with its ids of the special tokens and its chat template."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    return GemmaTokenizerFast(
        tokenizer_object=_words_and_newlines(_word_pieces(words, specials)),
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=GEMMA_CHAT_TEMPLATE,
        model_max_length=2048,
    )
