import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from servescope.traces import errors
from servescope.traces.errors import BadRow, EndpointError, GateFailed, InputError, ServescopeError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def tree(error: type[ServescopeError]) -> Iterator[type[ServescopeError]]:
    """Yield the error and its kinds as this module has them; other rooms may have more."""
    yield error
    for kind in error.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from tree(kind)


ALL = list(tree(ServescopeError))


def test_an_error_is_what_is_wrong_and_how_to_mend_it() -> None:
    error = BadRow("Row 3 is torn.", "Mend it.")
    assert (error.wrong, error.mend, str(error)) == (
        "Row 3 is torn.",
        "Mend it.",
        "Row 3 is torn. Mend it.",
    )


def test_an_error_survives_the_way_back_from_a_worker_process() -> None:
    there = pickle.loads(pickle.dumps(BadRow("Row 3 is torn.", "Mend it.")))
    assert type(there) is BadRow
    assert str(there) == "Row 3 is torn. Mend it."


@pytest.mark.parametrize("error", [e for e in ALL if issubclass(e, InputError)])
def test_what_the_user_gave_ends_with_2(error: type[ServescopeError]) -> None:
    assert error.exit_code == 2


def test_a_gate_ends_with_1_and_an_endpoint_with_3() -> None:
    assert (GateFailed.exit_code, EndpointError.exit_code) == (1, 3)


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_in_the_tree_of_the_module_and_on_its_page(
    error: type[ServescopeError],
) -> None:
    assert error.__name__ in (errors.__doc__ or "")
    page = PAGE.read_text()
    assert f"`{error.__name__}`" in page
    assert error is ServescopeError or f"| `{error.__name__}` | {error.exit_code} |" in page
