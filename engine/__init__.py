"""An emulated LLM serving engine with pluggable scheduling policies.

The HTTP server is `servescope.engine.http`: importing this package does not load it.
"""

from servescope.engine.assembly import deploy, emulate
from servescope.engine.blame import BadPlan, PolicyFailed
from servescope.engine.catalog import (
    Gpu,
    Model,
    Overhead,
    find_gpu,
    find_model,
    find_overhead,
    gpus,
    models,
    overheads,
)
from servescope.engine.cluster import Cluster, Replica
from servescope.engine.decoding import Decoding
from servescope.engine.engine import (
    Counters,
    Deadlock,
    Engine,
    Refused,
    Step,
    Tokens,
    Violation,
)
from servescope.engine.kvcache import BLOCK_TOKENS, BlockPool, blocks_for, kv_blocks
from servescope.engine.policy import (
    Annotator,
    Batch,
    Composed,
    Conserving,
    Controller,
    Dispatcher,
    Keep,
    Migrate,
    Partition,
    Parts,
    Pin,
    Retention,
    Scale,
    Scheduler,
    System,
    View,
    parts_of,
)
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load, StepTime
from servescope.engine.systems import SYSTEMS, installed_systems, make_system
from servescope.engine.veil import Veil
from servescope.engine.virtual import Source, run
from servescope.engine.watch import Watch

__all__ = [
    "BLOCK_TOKENS",
    "SYSTEMS",
    "Annotator",
    "BadPlan",
    "Batch",
    "BlockPool",
    "Cluster",
    "Composed",
    "Conserving",
    "Controller",
    "Counters",
    "Deadlock",
    "Decoding",
    "Dispatcher",
    "Engine",
    "Gpu",
    "Keep",
    "Load",
    "Migrate",
    "Model",
    "Overhead",
    "Partition",
    "Parts",
    "Pin",
    "PolicyFailed",
    "Prefixes",
    "Refused",
    "Replica",
    "Request",
    "Retention",
    "Scale",
    "Scheduler",
    "Segment",
    "Source",
    "Status",
    "Step",
    "StepTime",
    "System",
    "Tokens",
    "Veil",
    "View",
    "Violation",
    "Watch",
    "blocks_for",
    "deploy",
    "emulate",
    "find_gpu",
    "find_model",
    "find_overhead",
    "gpus",
    "installed_systems",
    "kv_blocks",
    "make_system",
    "models",
    "overheads",
    "parts_of",
    "run",
]
