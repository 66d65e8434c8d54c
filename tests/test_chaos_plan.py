"""The crash harness' draws: the same seed is the same round."""

import pytest

from chaos.plan import KINDS, NEEDS_OUTAGE, TARGETS, Drawing, Fault, draw, rng_of
from chaos.traffic import Sending, poison, sendings, world_of
from schemas.ids import NIL
from schemas.topics import Topics

NOW = 1_770_000_000_000


def traffic(seed: int, number: int) -> list[Sending]:
    world = world_of(rng_of(seed, number, "world"))
    return sendings(world, 500, NOW, rng_of(seed, number, "traffic"))


def test_a_seed_draws_the_same_faults_and_traffic_again() -> None:
    assert draw(7, 3, Drawing()) == draw(7, 3, Drawing())
    assert traffic(7, 3) == traffic(7, 3)
    poisons = [list(poison(Topics(), [NIL], NOW, rng_of(7, 3, "poison"))) for _ in range(2)]
    assert poisons[0] == poisons[1]


def test_another_seed_or_round_draws_others() -> None:
    rounds = [(7, 3), (7, 4), (8, 3)]
    assert len({str(traffic(*one)) for one in rounds}) == len(rounds)
    assert len({str([draw(seed, number, Drawing()) for number in range(5)]) for seed in range(5)}) == 5


def test_a_hundred_rounds_meet_every_kind_of_fault_and_every_target_of_a_kill() -> None:
    faults = [fault for number in range(100) for fault in draw(1, number, Drawing())]
    assert {fault.kind for fault in faults} == set(KINDS)
    assert {fault.target for fault in faults if fault.kind == "kill"} == set(TARGETS["kill"])


def test_no_target_is_struck_twice_in_a_round_and_none_but_its_kind_s() -> None:
    for number in range(200):
        faults = draw(2, number, Drawing())
        assert len({fault.target for fault in faults}) == len(faults)
        assert all(fault.target in TARGETS[fault.kind] for fault in faults)


def test_what_only_shows_without_the_log_comes_with_its_outage() -> None:
    faults = draw(3, 1, Drawing(wanted=["power-loss:edge-1"], most=1))
    (outage, loss) = faults
    assert loss.kind in NEEDS_OUTAGE
    assert outage.target in ("kafka", "edge-1>kafka")
    assert outage.at < loss.at and loss.end < outage.end


def test_freezes_stay_within_what_was_asked_for() -> None:
    drawing = Drawing(wanted=["freeze"], freeze=(2, 6))
    lengths = [fault.seconds for number in range(100) for fault in draw(4, number, drawing)]
    assert lengths and all(2 <= seconds <= 6 for seconds in lengths)


@pytest.mark.parametrize("wanted", ["burn", "kill:postgres>kafka", "cut:kafka"])
def test_a_fault_that_there_is_not_is_said_so(wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        draw(1, 1, Drawing(wanted=[wanted]))


def test_a_retry_of_the_plan_has_the_bytes_of_its_first_try() -> None:
    events: dict[str, list[dict[str, object]]] = {}
    for sending in traffic(1, 1):
        if sending.path == "/events":
            for event in sending.body["events"]:
                if "id" in event:
                    events.setdefault(event["id"], []).append(event)
    repeated = [one for one in events.values() if len(one) > 1]
    assert len(repeated) > 10
    assert all(event == one[0] for one in repeated for event in one)


def test_a_fault_reads_like_a_line_of_a_log() -> None:
    assert str(Fault("cut", "edge-1>kafka", 1.25, 3.0)) == "cut edge-1>kafka 1.2+3.0s"
