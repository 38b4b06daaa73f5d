# SPDX-License-Identifier: Apache-2.0
"""A text classifier in a hub folder: ``…ForSequenceClassification``, or a causal language model.

A language model classifies by answer words: the score of a class is that of its word after the
text. The user gives one word per class, each of one token.
"""

from typing import Any

from d3fast.hub.classifier import Classifier
from d3fast.hub.folders import HubFolder, find_folder
from d3fast.hub.pretrained import Pretrained, class_names, load_pretrained
from d3fast.hub.suspect import Request, Suspect, TextInput
from d3fast.hub.tokenizer import read_tokenizer
from d3fast.io.untrusted import printable

_SEQUENCES = "ForSequenceClassification"
_CAUSAL = ("ForCausalLM", "LMHeadModel")
LONGEST = 256  # tokens of a text; longer texts cost more than they tell


def resolve_text_folder(request: Request) -> Suspect | None:
    """Read a hub folder with a text classifier; ``None`` for other forms of model.

    Raises:
        ValueError: a folder that is refused, with the reason; see ``load_pretrained`` and
            ``read_tokenizer``. A language model without answers, or answers that are no single
            tokens; a model with one output.
        OSError: a file that cannot be read.
    """
    folder = find_folder(request.model)
    if folder is None:
        return None
    causal = folder.architecture.endswith(_CAUSAL)
    if not causal and _SEQUENCES not in folder.architecture:
        return None
    if request.checkpoint is not None:
        raise ValueError(
            f"'{printable(request.model, 200)}' brings its own weights: leave out --checkpoint"
        )
    _check_answers(folder, causal, request.answers)
    tokenizer, notes = read_tokenizer(folder.path)
    loaded = load_pretrained(
        folder, "AutoModelForCausalLM" if causal else "AutoModelForSequenceClassification"
    )
    pad, more = _padding(folder, loaded, tokenizer)
    notes = (*loaded.notes, *notes, *more)
    classes: tuple[str, ...] | None
    if causal:
        answers = tuple(_answer(folder, tokenizer, word) for word in request.answers)
        if len(set(answers)) < len(answers):
            raise ValueError(f"answers must be different tokens, got {', '.join(request.answers)}")
        model, classes = Classifier(loaded.model, pad=pad, answers=answers), request.answers
    else:
        count = loaded.config.num_labels
        if count < 2:
            raise ValueError(f"{printable(folder.path)} has one output: it is no classifier")
        classes, more = class_names(folder, folder.config.get("id2label"), count)
        model, notes = Classifier(loaded.model, pad=pad), (*notes, *more)
    length, more = _length(loaded, tokenizer, pad)
    return Suspect(
        model=model.eval(),
        name=folder.name,
        spec=folder.spec,
        family=loaded.config.model_type,
        input=TextInput(tokenizer, length, pad),
        classes=classes,
        files=loaded.weights.files,
        sha256=loaded.sha256,
        notes=(*notes, *more),
        save=loaded.save,
    )


def _check_answers(folder: HubFolder, causal: bool, answers: tuple[str, ...]) -> None:
    shown = printable(folder.path)
    if causal and len(answers) < 2:
        raise ValueError(
            f"{shown} is a language model: give --answers, one word per class, such as no,yes"
        )
    if answers and not causal:
        raise ValueError(f"{shown} is a classifier: leave out --answers")


def _answer(folder: HubFolder, tokenizer: Any, word: str) -> int:
    """Return the token of an answer, as it stands after a space if the vocabulary has that."""
    for text in (f" {word}", word):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
    raise ValueError(
        f"answer '{printable(word, 60)}' is not one token of {printable(folder.path)}: "
        "choose another word"
    )


def _padding(folder: HubFolder, loaded: Pretrained, tokenizer: Any) -> tuple[int, tuple[str, ...]]:
    """Return the padding id, given to tokenizer and model, and a note if it had to be chosen."""
    notes: tuple[str, ...] = ()
    if tokenizer.pad_token_id is None:
        named = ("eos_token", "unk_token", "bos_token")
        stand_in = next((name for name in named if getattr(tokenizer, name) is not None), None)
        if stand_in is None:
            raise ValueError(
                f"the tokenizer of {printable(folder.path)} has no padding token, nor an end, "
                "unknown or begin token that could stand in"
            )
        tokenizer.pad_token = getattr(tokenizer, stand_in)
        notes = (
            f"The tokenizer has no padding token: '{printable(tokenizer.pad_token, 40)}' "
            f"({stand_in.removesuffix('_token')}) stands in.",
        )
    pad, rows = int(tokenizer.pad_token_id), _vocabulary(loaded)
    if pad >= rows or len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer of {printable(folder.path)} has {max(len(tokenizer), pad + 1)} tokens, "
            f"the model knows {rows}"
        )
    # Classifiers on top of a decoder find a text's last token by it.
    loaded.config.pad_token_id = pad
    return pad, notes


def _vocabulary(loaded: Pretrained) -> int:
    model: Any = loaded.model
    return int(model.get_input_embeddings().weight.shape[0])


def _length(loaded: Pretrained, tokenizer: Any, pad: int) -> tuple[int, tuple[str, ...]]:
    """Return the largest number of tokens of a text, and a note if the model takes more."""
    config = loaded.config
    limits = [int(tokenizer.model_max_length)]  # 10**30 where the folder does not tell
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its relatives number positions from behind the padding id.
        model: Any = loaded.model
        offset = any(
            getattr(module, "padding_idx", None) is not None
            for name, module in model.named_modules()
            if name.endswith("position_embeddings")
        )
        limits.append(positions - (pad + 1 if offset else 0))
    longest = min(limits)
    if longest < 3:
        raise ValueError(f"the model takes texts of {longest} tokens, too few to classify")
    if longest <= LONGEST:
        return longest, ()
    whole = f"up to {longest}" if longest < 10**9 else "any number"
    return LONGEST, (f"Texts are cut to {LONGEST} tokens to save time; the model takes {whole}.",)
