"""Looking at the first bytes of a file: which fields does it have, without reading it all."""

from __future__ import annotations

import re
from functools import lru_cache

# The numbers of a list are passed over with their commas: there may be thousands.
_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*+)"|,(?:\s*+[-+.0-9eE]++\s*+,)*+|["{}\[\]:]', re.DOTALL)
_MANY = 100_000  # more than 64 KiB hold


@lru_cache(maxsize=8)
def paths(head: bytes) -> frozenset[str]:
    """Return the fields of the first JSON value as dotted paths, `[]` for the members of a list.

    `{"a": [{"b": 1}]}` has "a", "a[]" and "a[].b"; a value that is cut off has what is there. A
    text that is no JSON object or list has none.
    """
    text = head.lstrip()
    if not text.startswith((b"{", b"[")):
        return frozenset()
    found: set[str] = set()
    stack: list[str] = []  # the path of each open object or list
    kinds: list[bytes] = []
    at, last = "", ""
    for count, token in enumerate(_TOKEN.finditer(text)):
        sign = token.group(0)
        if sign in (b"{", b"["):
            stack.append(at)
            kinds.append(sign)
            if sign == b"[":
                at += "[]"
        elif sign in (b"}", b"]"):
            if not stack:
                break
            stack.pop()
            kinds.pop()
            if not stack or count > _MANY:
                break
            at = stack[-1] + ("[]" if kinds[-1] == b"[" else "")
        elif sign.startswith(b","):
            if stack:
                at = stack[-1] + ("[]" if kinds[-1] == b"[" else "")
        elif sign == b":":
            if kinds and kinds[-1] == b"{":
                at = f"{stack[-1]}.{last}" if stack[-1] else last
                found.add(at)
        elif sign == b'"':  # a text that is cut off
            break
        else:
            last = token.group(1).decode(errors="replace")
        if at.endswith("[]"):
            found.add(at)
    return frozenset(found)
