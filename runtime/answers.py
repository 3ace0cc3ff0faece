"""The sentence that every process gives when the documents hold no answer."""

from typing import Final

NO_ANSWER: Final = "The indexed documents do not answer this."
