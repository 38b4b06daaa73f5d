# SPDX-License-Identifier: Apache-2.0
"""``Classifier``: from inputs to scores around any classifier, under the classifier's own names."""

from torch import Tensor, nn

from d3fast.text.classifier import answer_scores
from d3fast.training.loaders import scores_of


class Classifier(nn.Module):
    """Module from inputs to scores around a model, with the names of the model's own state.

    The wrapper shares the model's parameters, buffers and modules instead of holding the model as a
    child: ``state_dict``, ``named_parameters`` and ``named_modules`` have no prefix, so that files
    and regular expressions for the model fit. Copies and pickles share them too.

    Args:
        model: takes normalised images (N, C, H, W), or token ids.
        mean: normalisation of images in [0, 1], one number per channel; ``None`` for none.
        std: as ``mean``.
        pad: padding id of a text model, called with ``input_ids`` and ``attention_mask``; ``None``
            for an image model, called with the images alone.
        answers: one token id per class, for a causal language model; see ``answer_scores``.

    Raises:
        ValueError: one of mean and std alone, or of different lengths; a std of zero or less.

    Example:
        >>> import torch
        >>> wrapped = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (0.5,), (0.5,))
        >>> [name for name, _ in wrapped.named_parameters()], wrapped(torch.zeros(1, 1, 2, 2)).shape
        (['1.weight', '1.bias'], torch.Size([1, 2]))
    """

    def __init__(
        self,
        model: nn.Module,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        *,
        pad: int | None = None,
        answers: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
            raise ValueError(f"mean and std must be given together, got {mean} and {std}")
        if any(not value > 0 for value in std or ()):
            raise ValueError(f"std must be > 0, got {std}")
        self._inner = [model]  # in a list: not a child, which would add a prefix to all names
        for shared in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[shared] = model.__dict__[shared]
        self.mean, self.std, self.pad, self.answers = mean, std, pad, answers
        self.training = model.training

    @property
    def inner(self) -> nn.Module:
        """The model inside."""
        return self._inner[0]

    def train(self, mode: bool = True) -> "Classifier":
        """Set the mode of the model inside too."""
        super().train(mode)
        self.inner.training = mode
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores (N, classes) of images (N, C, H, W) in [0, 1], or of token ids (N, L)."""
        if self.pad is not None:
            if self.answers:
                return answer_scores(self.inner, inputs, self.pad, self.answers)
            mask = (inputs != self.pad).long()
            return scores_of(self.inner(input_ids=inputs, attention_mask=mask))
        if self.mean is None or self.std is None:
            return scores_of(self.inner(inputs))
        mean, std = inputs.new_tensor(self.mean), inputs.new_tensor(self.std)
        return scores_of(self.inner((inputs - mean[:, None, None]) / std[:, None, None]))
