"""The tokenizer against independent token ids, and the attributes of OpenAI's class that callers use."""

import json
from pathlib import Path

import pytest
import torch

import clip
from clip.simple_tokenizer import SimpleTokenizer
from tests.paths import GOLDEN, needs_golden


@needs_golden
def test_ids_equal_golden() -> None:
    tokenizer = SimpleTokenizer()
    for case in json.loads((GOLDEN / "tokenizer.json").read_text()):
        ids = [49406, *tokenizer.encode(case["text"]), 49407]
        assert ids + [0] * (77 - len(ids)) == case["tokens"], case["text"]


def test_vocabulary_layout() -> None:
    tokenizer = SimpleTokenizer()
    assert len(tokenizer.encoder) == len(tokenizer.decoder) == 49408
    assert tokenizer.encoder["<|startoftext|>"] == 49406
    assert tokenizer.encoder["<|endoftext|>"] == 49407
    assert tokenizer.encoder["!"] == 0
    assert tokenizer.encoder["!</w>"] == 256
    # the first merge of the file is "i n"
    assert tokenizer.bpe_ranks["i", "n"] == 0
    assert tokenizer.encoder["in"] == 512
    assert all(tokenizer.decoder[i] == token for token, i in tokenizer.encoder.items())


def test_encoding_and_decoding_a_sentence() -> None:
    tokenizer = SimpleTokenizer()
    assert tokenizer.encode("a photo of a cat.") == [320, 1125, 539, 320, 2368, 269]
    assert tokenizer.decode([320, 1125, 539, 320, 2368, 269]) == "a photo of a cat . "
    assert tokenizer.decode(tokenizer.encode("日本語 😀 crème")) == "日本語 😀 crème "


def test_markers_in_text_are_single_tokens() -> None:
    assert SimpleTokenizer().encode("<|startoftext|>cat<|endoftext|>") == [49406, 2368, 49407]


def test_an_incomplete_character_decodes_to_the_replacement_character() -> None:
    tokenizer = SimpleTokenizer()
    first_byte = tokenizer.encoder[tokenizer.byte_encoder["é".encode()[0]]]
    assert tokenizer.decode([first_byte]) == "\ufffd"


def test_each_encoding_is_a_new_list() -> None:
    tokenizer = SimpleTokenizer()
    tokenizer.encode("cat").append(1)
    assert tokenizer.encode("cat") == [2368]


def test_bpe_splits_a_word_into_tokens() -> None:
    tokenizer = SimpleTokenizer()
    parts = tokenizer.bpe("leopard").split(" ")
    assert "".join(parts) == "leopard</w>"
    assert [tokenizer.encoder[part] for part in parts] == tokenizer.encode("leopard")


def test_constructing_a_tokenizer_reads_no_file(tmp_path: Path) -> None:
    tokenizer = SimpleTokenizer(str(tmp_path / "none.txt.gz"))
    with pytest.raises(FileNotFoundError, match=r"none\.txt.gz"):
        tokenizer.encode("cat")


@needs_golden
def test_tokenize_equals_golden() -> None:
    cases = json.loads((GOLDEN / "tokenizer.json").read_text())
    ids = clip.tokenize([case["text"] for case in cases])
    assert ids.dtype == torch.int32
    assert ids.tolist() == [case["tokens"] for case in cases]


def test_tokenize_one_text_and_context_length() -> None:
    assert clip.tokenize("cat").shape == (1, 77)
    assert clip.tokenize(["cat", "a cat"], context_length=5).tolist() == [
        [49406, 2368, 49407, 0, 0],
        [49406, 320, 2368, 49407, 0],
    ]
    assert clip.tokenize([]).shape == (0, 77)


def test_too_long_texts_are_an_error_or_truncated() -> None:
    """77 tokens are start of text, 75 words of one token, end of text."""
    assert clip.tokenize("cat " * 75)[0].tolist() == [49406, *[2368] * 75, 49407]
    with pytest.raises(ValueError, match=r"78 tokens does not fit the context length of 77.*truncate=True"):
        clip.tokenize("cat " * 76)
    with pytest.raises(RuntimeError, match="78 tokens"):  # OpenAI's
        clip.tokenize("cat " * 76)
    assert clip.tokenize("cat " * 76, truncate=True)[0].tolist() == [49406, *[2368] * 75, 49407]
