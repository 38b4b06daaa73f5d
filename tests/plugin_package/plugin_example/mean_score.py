from dataclasses import dataclass


@dataclass(frozen=True)
class MeanScore:
    """The mean score of a class over the samples of all classes."""

    name = "mean-score"
    title = "mean score of a class"
    spread = 0.0  # smallest difference between two classes that counts

    def __call__(self, context):
        return context.scores(context.images).mean(dim=0).tolist()
