"""What the prompts of a program have in common, piece by piece, for an engine that has no text."""

from __future__ import annotations

from collections.abc import Mapping

from servescope.loadgen.program import Call, Program

Text = tuple[tuple[int | str, int], ...]  # pieces in order: a name that the same text has, tokens


def texts_of(program: Program, block_tokens: int | None) -> dict[str, Text]:
    """Return the prompt of every call, cut so that prompts that begin alike have pieces in common.

    Prefix blocks come first. The rest goes on from the call's last parent whose text it can hold,
    with that call's answer if there is room for it, as a chat does; or from another call of the
    same stream.
    """
    texts: dict[str, Text] = {}
    calls: dict[str, Call] = {}
    longest: dict[str, Call] = {}  # by stream
    for call in program.calls:
        text, tokens = _blocks(call, block_tokens)
        before = _before(call, calls, longest)
        if before is not None and before.input_tokens > tokens:
            text, tokens = texts[before.id], before.input_tokens
            answered = tokens + before.output_tokens
            if before.id in call.parents and answered <= call.input_tokens:
                text, tokens = (*text, (before.id, before.output_tokens)), answered
        if call.input_tokens > tokens:
            text = (*text, (f"{call.id}?", call.input_tokens - tokens))
        texts[call.id] = text
        calls[call.id] = call
        best = longest.get(call.prompt_stream)
        if best is None or best.input_tokens <= call.input_tokens:
            longest[call.prompt_stream] = call
    return texts


def _before(call: Call, calls: Mapping[str, Call], longest: Mapping[str, Call]) -> Call | None:
    """Return the call whose text a call goes on from."""
    parents = [calls[parent] for parent in call.parents if parent in calls]
    known = [
        each
        for each in (*parents, longest.get(call.prompt_stream))
        if each is not None
        and each.prompt_stream == call.prompt_stream
        and each.input_tokens <= call.input_tokens
    ]
    return max(known, key=lambda each: each.input_tokens, default=None)


def _blocks(call: Call, block_tokens: int | None) -> tuple[Text, int]:
    """Return the pieces that a call's prefix blocks name, and their tokens."""
    if not call.prefix_blocks or not block_tokens:
        return (), 0
    whole, rest = divmod(call.input_tokens, block_tokens)
    ids = call.prefix_blocks
    text = [(block, block_tokens) for block in ids[:whole]]
    if rest and len(ids) > whole:
        text.append((ids[whole], rest))
    return tuple(text), sum(tokens for _, tokens in text)
