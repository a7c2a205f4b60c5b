"""The error budget: whatever is asked, and in whatever order answers come, at most alpha is spent."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import soak
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.budgets import budget
from validation.budgets.budget import History, Terms, Try, is_spent, level_of, remaining, tries_left

ALPHA = 0.05


def terms(tries: int, promotions: int | None = None) -> Terms:
    return Terms(alpha=ALPHA, tries=tries, promotions=promotions or tries)


def after(history: History, rules: Terms, answer: bool | None, *, is_first: bool = False) -> History:
    level = level_of(rules, history, is_first=is_first)
    return History((*history.tries, Try(level, is_first, answer, history.pending)))


def told(history: History, number: int, answer: bool) -> History:
    tries = list(history.tries)
    tries[number - 1] = replace(tries[number - 1], is_confirmed=answer)
    return History(tuple(tries))


class Adversary:
    """Computes the most that a trainer can spend, over the whole tree of answers.

    Every candidate is bad (it costs its level, and what follows its confirmation costs nothing more,
    since the harm is done) or good (it costs nothing), whichever is worse. `moves` decides what
    comes next in each state of knowledge: another try, or the answer to a pending one.
    """

    def __init__(self, rules: Terms, *, moves: int | None, firsts: bool = False, most: int = 50) -> None:
        self.rules, self.moves, self.firsts, self.most = rules, moves, firsts, most

    def worst(self, history: History = History(), bad: frozenset[int] = frozenset()) -> float:  # noqa: B008
        pending = history.pending
        can_begin = (
            len(history.tries) < self.most
            and not is_spent(self.rules, history)
            and budget.remaining(self.rules, history) > 0
        )
        if self.moves is None:
            begins, chosen, is_first = not pending, pending[:1], False
        else:
            # One decision for each state of knowledge, whatever its candidates are.
            chance = random.Random(f"{self.moves}{[(t.is_confirmed, t.pending) for t in history.tries]}")
            begins = can_begin and (not pending or chance.random() < 0.5)
            chosen = (chance.choice(pending),) if pending else ()
            is_first = self.firsts and chance.random() < 0.4
        if can_begin and begins:
            begun = after(history, self.rules, None, is_first=is_first)
            number = len(begun.tries)
            level = begun.tries[-1].level
            return max(level + self.worst(begun, bad | {number}), self.worst(begun, bad))
        if not chosen:
            return 0.0
        number = chosen[0]
        refused = self.worst(told(history, number, False), bad)
        return refused + (0.0 if number in bad else self.worst(told(history, number, True), bad))


@pytest.mark.parametrize("tries", range(1, 8))
@pytest.mark.parametrize("promotions", [1, 2, 3, 7])
def test_one_after_another_the_whole_tree_spends_alpha_and_no_more(tries: int, promotions: int) -> None:
    rules = terms(tries, min(promotions, tries))
    assert Adversary(rules, moves=None).worst() == pytest.approx(ALPHA, rel=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), tries=st.integers(1, 5), firsts=st.booleans())
def test_in_any_order_of_beginnings_and_answers_the_tree_spends_alpha_at_most(
    seed: int, tries: int, firsts: bool
) -> None:
    adversary = Adversary(terms(tries), moves=seed, firsts=firsts, most=5)
    assert adversary.worst() <= ALPHA * (1 + 1e-12)


def test_the_adversary_finds_a_rule_that_spends_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    # Giving back what a confirmed try took without giving up the rest would be alpha for each promotion.
    def lavish(rules: Terms, history: History) -> float:
        return rules.alpha - sum(one.level for one in history.tries if not one.is_confirmed)

    monkeypatch.setattr("validation.budgets.budget.remaining", lavish)
    assert Adversary(terms(3), moves=None).worst() > ALPHA * 1.2


def test_a_try_without_an_answer_that_costs_nothing_would_spend_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def most_over_seeds() -> float:
        return max(Adversary(terms(6), moves=seed, most=4).worst() for seed in range(30))

    def generous(rules: Terms, history: History) -> float:
        answered = tuple(replace(one, pending=()) for one in history.tries if one.is_confirmed is not None)
        return remaining(rules, History(answered))

    within = most_over_seeds()
    monkeypatch.setattr("validation.budgets.budget.remaining", generous)
    assert within <= ALPHA * (1 + 1e-12) < most_over_seeds()


def test_the_levels_of_ten_tries_without_a_promotion() -> None:
    rules, history, levels = terms(10, 2), History(), []
    while not is_spent(rules, history):
        levels.append(level_of(rules, history, is_first=False))
        history = after(history, rules, False)
    assert levels == pytest.approx([ALPHA / 2, *[ALPHA / 18] * 9])
    assert remaining(rules, history) == pytest.approx(0, abs=1e-15)


def test_after_a_promotion_the_level_that_found_it_is_what_remains() -> None:
    rules = terms(10, 2)
    history = after(after(History(), rules, False), rules, True)
    assert remaining(rules, history) == pytest.approx(ALPHA / 18)
    assert level_of(rules, history, is_first=False) == pytest.approx(ALPHA / 36)
    history = after(history, rules, False)
    assert level_of(rules, history, is_first=False) == pytest.approx(ALPHA / 36 / 7)


def test_a_first_model_takes_nine_tenths_and_leaves_them_to_its_successors() -> None:
    rules = terms(10, 2)
    confirmed = after(History(), rules, True, is_first=True)
    assert confirmed.tries[0].level == pytest.approx(0.9 * ALPHA)
    assert level_of(rules, confirmed, is_first=False) == pytest.approx(0.45 * ALPHA)
    history, levels = History(), []
    for _ in range(5):
        levels.append(level_of(rules, history, is_first=True) / ALPHA)
        history = after(history, rules, False, is_first=True)
    assert levels == pytest.approx([0.9, *[0.1 / ((f - 1) * f) for f in range(2, 6)]])
    assert tries_left(rules, history) == 10


def test_it_is_spent_by_the_last_try_or_by_the_last_promotion() -> None:
    rules = terms(3, 1)
    assert tries_left(rules, History()) == 3
    promoted = after(History(), rules, True)
    assert (is_spent(rules, promoted), tries_left(rules, promoted)) == (True, 0)
    history = History()
    for left in (2, 1, 0):
        history = after(history, rules, None)
        assert tries_left(rules, history) == left
    with pytest.raises(ValueError, match="spent"):
        level_of(rules, history, is_first=False)


@settings(max_examples=soak.rounds(50, soak=500), deadline=None, derandomize=True)
@given(data=st.data())
def test_there_is_always_something_left_for_the_next_try(data: st.DataObject) -> None:
    tries = data.draw(st.integers(1, 40))
    rules = terms(tries)
    history = History()
    while not is_spent(rules, history):
        level = level_of(rules, history, is_first=False)
        assert 0 < level <= remaining(rules, history) <= ALPHA
        history = after(history, rules, data.draw(st.sampled_from([None, False, True])))
        for number in history.pending:
            if data.draw(st.booleans()):
                history = told(history, number, data.draw(st.booleans()))
