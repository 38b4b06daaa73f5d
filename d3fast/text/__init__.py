# SPDX-License-Identifier: Apache-2.0
"""Text classifiers: token ids instead of pixels, so that everything else runs as it is.

A batch of texts is a tensor of token ids (N, L), a trigger inserts tokens into it, and
``TextClassifier`` is a module from ids to scores. Evaluation, repairs and defences see inputs,
labels and scores, and need to know nothing of words.
"""

from d3fast.text.classifier import AnswerWords, TextClassifier
from d3fast.text.data import TextData, encode
from d3fast.text.snippets import movie_snippets, snippet_sources
from d3fast.text.triggers import InsertedTokens, word_starts

__all__ = [
    "AnswerWords",
    "InsertedTokens",
    "TextClassifier",
    "TextData",
    "encode",
    "movie_snippets",
    "snippet_sources",
    "word_starts",
]
