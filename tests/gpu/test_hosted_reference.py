"""``reference_device="cpu"``: the reference pinned on the host and copied in for each step."""

import pytest
import torch


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("kind", [None, torch.bfloat16], ids=["own", "bf16"])
def test_steps_have_the_bits_of_those_with_the_reference_on_the_device(
    make, same_bits, kind, scope
):
    results = []
    for place in (None, "cpu"):
        options = {"reference_dtype": kind, "scope": scope, "backend": "reference"}
        params, opt = make(reference_device=place, **options)
        for _ in range(4):
            opt.step()
        kept = [opt.state[p]["reference"] for p in params if p.numel()]
        assert all(t.is_cpu and t.is_pinned() if place else t.is_cuda for t in kept)
        results.append([*params, *opt.distances().values()])
    assert same_bits(*results)


def test_no_more_than_one_tensor_of_the_reference_is_on_the_device(make):
    shapes = [(1 << 20,)] * 16
    peaks = []
    for place in (None, "cpu"):
        _, opt = make(shapes, reference_device=place, backend="reference")
        opt.step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        opt.step()
        peaks.append(torch.cuda.max_memory_allocated())
        del opt
    assert peaks[0] - peaks[1] >= 14 * 4 * (1 << 20)


def test_auto_takes_the_plain_backend_and_says_why(make):
    with pytest.warns(UserWarning, match="reference_device='cpu' is not where"):
        make(reference_device="cpu", backend="auto")
