"""The prefix cache: what prompts began with, kept in KV blocks until somebody needs the room.

A radix tree (SGLang's RadixAttention, Zheng et al. 2024), with whole segments of text as its edges.
Only full blocks are shared, as in vLLM: a block belongs to the node in whose text it ends, so two
texts that part within a block have a block each. The least recently used leaf goes first, from its
tail.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import count
from typing import NamedTuple

from servescope.engine.kvcache import BLOCK_TOKENS

_REBUILD_ENTRIES = 1 << 12


class Segment(NamedTuple):
    """A piece of text: a name that the same text always has, and its tokens."""

    key: int | str
    tokens: int


class Node:
    """Text from `start` to `end` (tokens from the beginning) after the text of its parent."""

    __slots__ = ("children", "end", "holders", "parent", "segment", "start", "used")

    def __init__(self, parent: Node | None, segment: Segment, start: int, end: int) -> None:
        self.parent = parent
        self.segment = segment
        self.start = start
        self.end = end
        self.children: dict[Segment, Node] = {}
        self.holders = 0  # of this node or of one below it
        self.used = 0

    @property
    def blocks(self) -> int:
        """Full blocks that end in its text."""
        return self.end // BLOCK_TOKENS - self.start // BLOCK_TOKENS

    @property
    def depth_blocks(self) -> int:
        """Full blocks from the beginning to its end."""
        return self.end // BLOCK_TOKENS

    def up(self) -> Iterator[Node]:
        """Yield the node and those above it, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


class Prefixes:
    """The tree, and how many blocks it holds: `blocks` in all, `idle` that nobody holds."""

    __slots__ = ("_leaves", "_rebuild_at", "_ticks", "blocks", "idle", "root")

    def __init__(self) -> None:
        self.root = Node(None, Segment("", 0), 0, 0)
        self.blocks = 0
        self.idle = 0
        self._ticks = count(1)
        self._leaves: list[tuple[int, int, Node]] = []  # idle ones, the least recently used first
        self._rebuild_at = _REBUILD_ENTRIES

    def find(self, text: Iterable[Segment]) -> Node:
        """Return the deepest node of a text; its end may lie within a segment."""
        node, at = self.root, 0
        for segment in text:
            child = node.children.get(segment)
            if child is None:
                break
            node, at = child, at + segment.tokens
            if child.end < at:
                break
        return node

    def insert(self, text: Iterable[Segment], tokens: int) -> tuple[Node, int]:
        """Keep a text's first `tokens`; returns its deepest node, and how many blocks are new."""
        node, at, new = self.root, 0, 0
        for segment in text:
            end = min(at + segment.tokens, tokens)
            if end <= at:
                break
            child = node.children.get(segment)
            if child is None:
                child = node.children[segment] = Node(node, segment, at, at)
            before = child.blocks
            child.end = max(child.end, end)
            grown = child.blocks - before
            new += grown
            if not child.holders:
                self.idle += grown
                self._touch(child)
            node, at = child, end
            if end == tokens:
                break
        self.blocks += new
        return node, new

    def hold(self, node: Node) -> None:
        """Keep a node, and so all above it, from being dropped."""
        for each in node.up():
            if not each.holders:
                self.idle -= each.blocks
            each.holders += 1

    def let_go(self, node: Node) -> None:
        """Hold a node no longer."""
        for each in node.up():
            each.holders -= 1
            if not each.holders:
                self.idle += each.blocks
                self._touch(each)

    def idle_to(self, node: Node) -> int:
        """Return how many blocks holding a node would keep from those that can be dropped."""
        return sum(each.blocks for each in node.up() if not each.holders)

    def drop(self, blocks: int) -> int:
        """Drop up to so many idle blocks, the least recently used first; returns how many."""
        left = blocks
        while left > 0 and self._leaves:
            used, _, node = heapq.heappop(self._leaves)
            parent = node.parent
            if parent is None or not _droppable(node, used):
                continue
            dropped = min(left, node.blocks)
            left -= dropped
            if dropped == node.blocks:
                del parent.children[node.segment]
                node.parent = None
                if not parent.children and not parent.holders and parent.parent is not None:
                    self._push(parent)
            else:
                node.end = (node.depth_blocks - dropped) * BLOCK_TOKENS
                self._push(node)
        dropped = blocks - left
        self.blocks -= dropped
        self.idle -= dropped
        return dropped

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        nodes, todo = [], list(self.root.children.values())
        while todo:
            node = todo.pop()
            nodes.append(node)
            todo += node.children.values()
            assert node.start <= node.end
            assert node.holders >= sum(child.holders for child in node.children.values())
            assert all(child.start == node.end for child in node.children.values())
        assert self.blocks == sum(node.blocks for node in nodes)
        assert self.idle == sum(node.blocks for node in nodes if not node.holders)

    def _touch(self, node: Node) -> None:
        node.used = next(self._ticks)
        if not node.children:
            self._push(node)

    def _push(self, node: Node) -> None:
        heapq.heappush(self._leaves, (node.used, next(self._ticks), node))
        if len(self._leaves) >= self._rebuild_at:
            # what was used again since, or has gone, stands there still
            self._leaves = [entry for entry in self._leaves if _droppable(entry[2], entry[0])]
            heapq.heapify(self._leaves)
            self._rebuild_at = max(_REBUILD_ENTRIES, 2 * len(self._leaves))


def _droppable(node: Node, used: int) -> bool:
    """Whether a leaf that was last used at this tick is one still, and nobody holds it."""
    left = node.holders or node.children or node.parent is None
    return not left and node.used == used
