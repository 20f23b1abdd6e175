import pytest

from servescope.engine.faults import Fault, Faults
from servescope.traces.errors import InputError


def test_faults_are_read() -> None:
    assert Fault.parse("reset:0.01") == Fault("reset", 0.01)
    assert Fault.parse("stall:0.02:3s") == Fault("stall", 0.02, 3.0)
    assert Fault.parse("error:0.05") == Fault("error", 0.05)
    assert Fault.parse("error-503:1") == Fault("error", 1.0, status=503)


@pytest.mark.parametrize(
    "text",
    ["reset", "reset:2", "reset:0.1:3s", "stall:0.1", "error-200:0.1", "melt:0.1", "reset:."],
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no fault"):
        Fault.parse(text)


def test_shares_are_kept_and_a_seed_repeats() -> None:
    faults = [Fault("reset", 0.1), Fault("error", 0.2)]
    one, other = Faults(faults, seed=3), Faults(faults, seed=3)
    drawn = [one.draw() for _ in range(10_000)]
    assert drawn == [other.draw() for _ in range(10_000)]
    assert drawn.count(faults[0]) == pytest.approx(1000, rel=0.1)
    assert drawn.count(faults[1]) == pytest.approx(2000, rel=0.1)
    assert one.counts == {"reset": drawn.count(faults[0]), "error": drawn.count(faults[1])}


def test_more_faults_than_requests_are_refused() -> None:
    with pytest.raises(InputError, match="more than all"):
        Faults([Fault("reset", 0.6), Fault("error", 0.6)])
