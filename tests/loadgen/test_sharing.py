import polars as pl

from servescope.loadgen.sharing import shareable_tokens


def calls(*rows: tuple[int, int, str, list[int], str | None]) -> pl.DataFrame:
    names = ("input_tokens", "output_tokens", "prompt_stream", "prefix_blocks", "prompt_sha256")
    types = {"prefix_blocks": pl.List(pl.UInt64), "prompt_sha256": pl.String}
    return pl.DataFrame(rows, schema=names, orient="row", schema_overrides=types)


def test_a_stream_shares_what_was_sent_of_it_before_and_its_answers() -> None:
    sent = calls(
        (100, 20, "a", [], None),
        (150, 20, "a", [], None),  # 120 were said before
        (90, 20, "b", [], None),  # the first of its stream
        (60, 20, "a", [], None),  # all of it was sent before, in the longer ones
    )
    assert shareable_tokens(sent, None).to_list() == [0, 120, 0, 60]


def test_blocks_are_shared_up_to_the_first_that_is_new() -> None:
    sent = calls(
        (1024, 1, "a", [1, 2], None),
        (1500, 1, "b", [1, 2, 3], None),  # 1024 known
        (2048, 1, "c", [1, 9, 3, 4], None),  # 512: block 3 comes after one that is new
        (600, 1, "d", [1, 2], None),  # no more than it has
        (512, 1, "e", [2], None),  # known at another place only
        (512, 1, "f", [], None),  # of no block, and the first of its stream
    )
    assert shareable_tokens(sent, 512).to_list() == [0, 1024, 512, 600, 0, 0]


def test_nobody_knows_what_recorded_texts_share() -> None:
    sent = calls((100, 1, "a", [], "0" * 64), (70, 1, "b", [], None))
    assert shareable_tokens(sent, None).to_list() == [100, 0]
