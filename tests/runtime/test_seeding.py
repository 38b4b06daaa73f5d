"""One seed, split into streams that do not disturb each other."""

import numpy as np
import pytest
import torch

from d3fast.runtime.seeding import generator, global_seed


def _draw(seed, stream):
    return torch.rand(8, generator=generator(seed, stream))


def test_seed_and_stream_fix_the_numbers():
    assert torch.equal(_draw(0, "poison"), _draw(0, "poison"))


def test_streams_and_seeds_are_independent():
    draws = [_draw(seed, stream) for seed in (0, 1, 10) for stream in ("a", "b", "/a", "0/a")]
    assert len({tuple(d.tolist()) for d in draws}) == len(draws)


def test_the_numbers_stay_the_same_from_version_to_version():
    """Published results depend on them."""
    assert generator(0, "poison").initial_seed() == 8847449902621784194
    assert generator(7, "split").initial_seed() == 5071290183312037391


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    _draw(0, "poison")
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_follow_the_seed_alone():
    def weights(seed, stream="init"):
        torch.rand(3)
        with global_seed(seed, stream):
            return torch.nn.Linear(3, 2).weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert not torch.equal(weights(0), weights(0, "other"))


def test_the_global_generator_is_put_back_even_after_an_error():
    before = torch.get_rng_state()

    def failing():
        with global_seed(0):
            torch.rand(3)
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        failing()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True, np.float64(1)])
def test_a_seed_that_is_no_integer_from_0_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer >= 0, got "):
        generator(seed, "poison")
    with (
        pytest.raises(ValueError, match=r"seed must be an integer >= 0, got "),
        global_seed(seed),
    ):
        pytest.fail("the block ran")


def test_seeds_of_any_size_work():
    assert 0 <= generator(2**200, "poison").initial_seed() < 2**63
