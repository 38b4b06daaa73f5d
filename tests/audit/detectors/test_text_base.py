"""The names of the text detectors, and what their results say."""

from d3fast.audit.detectors.text_base import TEXT_DETECTORS, text_result
from d3fast.audit.detectors.text_context import TokenTrigger
from d3fast.audit.detectors.token_sweep import TokenSweep
from d3fast.audit.inspect_text import TextInspectOptions


def test_the_detectors_run_in_the_order_of_the_registry():
    assert TextInspectOptions().detectors == tuple(TEXT_DETECTORS) == ("token", "phrase")


def test_a_strength_at_the_limit_is_not_flagged():
    def flagged(strength):
        found = [TokenTrigger(0, (7,), 1.0, strength), TokenTrigger(1, (8,), 0.0, -1.0)]
        result = text_result(TokenSweep(), found, ("a", "b"))
        assert ("above" in result.meaning) == result.flagged
        return result.flagged

    assert not flagged(TokenSweep.limit)
    assert flagged(TokenSweep.limit + 0.01)


def test_the_sentence_names_class_tokens_and_share():
    found = [TokenTrigger(0, (7,), 0.5, 0.2), TokenTrigger(1, (8, 9), 0.25, 0.9)]
    meaning = text_result(TokenSweep(), found, ("a", "b")).meaning
    assert "highest for 'b', which is below the threshold" in meaning
    assert "“token 8, token 9” turns 25.0 % of the texts" in meaning
