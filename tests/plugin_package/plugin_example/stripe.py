from dataclasses import dataclass

from d3fast.attacks.poisoning import empty_state, load_empty_state, poison_once
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.training.labels import MAPPINGS


@dataclass(frozen=True)
class Stripe:
    """A row of white pixels."""

    target: int
    row: int = 1
    mapping: str = "all-to-one"

    def __post_init__(self):
        check_integer("target", self.target, 0)
        check_integer("row", self.row, 0)
        check_choice("mapping", self.mapping, MAPPINGS)

    def trigger(self, images):
        stamped = images.clone()
        stamped[..., self.row, :] = 1.0 if images.is_floating_point() else 255
        return stamped

    poison = poison_once  # stamps a share of a data set and relabels it by the mapping
    state_dict = empty_state  # nothing is learned
    load_state_dict = load_empty_state
