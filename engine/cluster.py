"""Replicas of an engine behind a dispatcher."""


class Replica:
    """One engine of a cluster, as a policy sees it."""
