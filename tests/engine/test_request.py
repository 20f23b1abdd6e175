from servescope.engine.request import Request, Status


def test_a_new_request_waits_with_its_whole_prompt_to_compute() -> None:
    request = Request("a", 100, 5, 0.0)
    assert request.status is Status.WAITING
    assert (request.computed, request.remaining, request.generated) == (0, 100, 0)
    assert not request.done


def test_two_requests_with_equal_fields_are_two_requests() -> None:
    assert Request("a", 1, 1, 0.0) != Request("a", 1, 1, 0.0)
