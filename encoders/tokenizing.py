"""Texts to token ids, by the Rust tokenizers (they release the GIL), and ids to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as RustTokenizer

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

# Padded lengths are multiples of this: few enough shapes that a runtime's cache of prepared
# kernels stays small, at most 7 tokens of waste a text.
LENGTH_STEP: Final = 8
# All callers share one pool of threads, which ends what it has before it takes another call:
# so many texts (3 ms on 2 threads) are the most that a question waits for.
_SLICE_TEXTS: Final = 32
# Of one call that is tokenised on the event loop. A question takes 0.02 to 0.07 ms there, and the
# way to a thread and back 0.22, or 0.37 after a pause.
_SHORT_TEXTS: Final = 4
_SHORT_CHARACTERS: Final = 512


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """One text (or pair of texts) as the model reads it.

    ids: token ids, special ones included, not padded.
    type_ids: 0 for the first text, 1 for the second.
    content: True where a token stands for text of the caller, not a special token.
    prompt_tokens: how many at the start are the model's own prefix.
    truncated: whether the text was longer than the model reads.
    """

    ids: IntArray
    type_ids: IntArray
    content: BoolArray
    prompt_tokens: int
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """Cuts at `max_tokens`, never pads, and says what it cut. Thread-safe after construction.

    serialised: the `tokenizer.json` of the model, as text.
    pad_id: what fills the end of a padded row; it is masked.
    """

    def __init__(self, serialised: str, *, max_tokens: int, pad_id: int) -> None:
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        self._tokenizer = RustTokenizer.from_str(serialised)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def encode(
        self, texts: Sequence[str], prompt: str = "", prompt_tokens: int = 0
    ) -> list[Tokens]:
        """One `Tokens` per text, each with `prompt` before it. Call it in a thread."""
        return self._encode([prompt + text for text in texts] if prompt else texts, prompt_tokens)

    def encode_pairs(self, first: str, seconds: Sequence[str]) -> list[Tokens]:
        """One `Tokens` per pair (first, second); the longer of the two is cut first."""
        return self._encode([(first, second) for second in seconds], 0)

    def encode_short(
        self, texts: Sequence[str], prompt: str = "", prompt_tokens: int = 0
    ) -> list[Tokens]:
        """As `encode`, for texts that are `short`, on the event loop too: in the calling thread,
        so that it never waits behind the texts of others.
        """
        return [_tokens(self._tokenizer.encode(prompt + text), prompt_tokens) for text in texts]

    def _encode(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], prompt_tokens: int
    ) -> list[Tokens]:
        rows: list[Tokens] = []
        for start in range(0, len(texts), _SLICE_TEXTS):
            encodings = self._tokenizer.encode_batch_fast(texts[start : start + _SLICE_TEXTS])
            rows += [_tokens(encoding, prompt_tokens) for encoding in encodings]
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class TokenPair:
    """Two texts in one row.

    ranges: int64 [tokens of the second, 2], each token's characters [start, end) in the second.
    first: position in the row of the second text's first token.
    """

    tokens: Tokens
    ranges: IntArray
    first: int


class PairTokenizer:
    """Pairs with the place of every token in the second text. Thread-safe.

    The end of the second text is cut where a pair is too long. The first is only cut where it
    would take more than half of the row.
    """

    def __init__(self, serialised: str, *, max_tokens: int) -> None:
        self._tokenizer = RustTokenizer.from_str(serialised)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._room = max_tokens - self._tokenizer.num_special_tokens_to_add(True)

    def encode(self, first: str, seconds: Sequence[str]) -> list[TokenPair]:
        """One `TokenPair` per pair (first, second), in order."""
        asked = self._tokenizer.encode(first, add_special_tokens=False)
        asked.truncate(self._room // 2)
        pairs: list[TokenPair] = []
        for start in range(0, len(seconds), _SLICE_TEXTS):
            texts = seconds[start : start + _SLICE_TEXTS]
            # Not the fast one: it leaves the places of tokens out.
            for second in self._tokenizer.encode_batch(texts, add_special_tokens=False):
                second.truncate(self._room - len(asked))
                pair = self._tokenizer.post_process(asked, second, add_special_tokens=True)
                pairs.append(_token_pair(pair, len(second)))
        return pairs


def _token_pair(pair: Encoding, second: int) -> TokenPair:
    tokens = _tokens(pair, 0)
    # Where nothing of the second text is left, it would begin after all else.
    first = pair.sequence_ids.index(1) if second else len(tokens)
    ranges = np.array(pair.offsets[first : first + second], np.int64).reshape(-1, 2)
    return TokenPair(tokens, ranges, first)


def _tokens(encoding: Encoding, prompt_tokens: int) -> Tokens:
    return Tokens(
        ids=np.array(encoding.ids, np.int64),
        type_ids=np.array(encoding.type_ids, np.int64),
        content=np.array(encoding.special_tokens_mask, np.int64) == 0,
        prompt_tokens=prompt_tokens,
        truncated=bool(encoding.overflowing),
    )


def short(texts: Sequence[str]) -> bool:
    """Whether a call is tokenised in less time than a thread takes to hear of it."""
    return len(texts) <= _SHORT_TEXTS and sum(map(len, texts)) <= _SHORT_CHARACTERS


def padded_length(tokens: int, max_tokens: int) -> int:
    """Length of a row that holds `tokens`: the next multiple of LENGTH_STEP, or `max_tokens`."""
    return max(min(-(-tokens // LENGTH_STEP) * LENGTH_STEP, max_tokens), tokens)


def guessed_tokens(text: str, max_tokens: int) -> int:
    """A guess of the tokens a text will have, told at once: who is refused by it need not wait
    for the tokenizer (30 passages: 10 ms).

    English prose has about 5 characters a token, special ones included, and code fewer. It
    is too high for few texts, such as a list of long URLs, each one token of a model that
    splits words: that one may be refused by a queue that has just room for it.
    """
    return min(1 + len(text) // 5, max_tokens)


def pad(batch: Sequence[Tokens], *, max_tokens: int, pad_id: int) -> dict[str, IntArray]:
    """The arrays a model may ask for, each [len(batch), padded length].

    input_ids, token_type_ids; attention_mask: 1 where a token is; pooling_mask:
    the same without the model's own prefix; content_mask: without special tokens.
    """
    length = padded_length(max(len(tokens) for tokens in batch), max_tokens)
    shape = (len(batch), length)
    arrays = {
        "input_ids": np.full(shape, pad_id, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "pooling_mask": np.zeros(shape, np.int64),
        "content_mask": np.zeros(shape, np.int64),
    }
    for row, tokens in enumerate(batch):
        size = len(tokens)
        arrays["input_ids"][row, :size] = tokens.ids
        arrays["token_type_ids"][row, :size] = tokens.type_ids
        arrays["attention_mask"][row, :size] = 1
        arrays["pooling_mask"][row, tokens.prompt_tokens : size] = 1
        arrays["content_mask"][row, :size] = tokens.content
    return arrays
