from servescope.dashboards.grafana.promql import (
    Query,
    average,
    buckets,
    chosen,
    mean,
    quantile,
    quantiles,
    rate,
    share,
    total,
)

CHOSEN = 'job=~"$job",instance=~"$instance"'


def test_only_the_chosen_jobs_and_instances_are_asked_for() -> None:
    assert chosen("up") == f"up{{{CHOSEN}}}"
    assert chosen("up", 'a="b"') == f'up{{{CHOSEN},a="b"}}'


def test_gauges_are_added_up_or_averaged_in_each_instance() -> None:
    assert total("a") == f"sum by (job, instance) (a{{{CHOSEN}}})"
    assert total("a", by="kind") == f"sum by (kind, job, instance) (a{{{CHOSEN}}})"
    assert average("a") == f"avg by (job, instance) (a{{{CHOSEN}}})"


def test_a_share_is_of_the_growth_of_two_counters() -> None:
    one, other = rate("a_total"), rate("b_total")
    assert one == f"sum by (job, instance) (rate(a_total{{{CHOSEN}}}[$__rate_interval]))"
    assert share("a_total", "b_total") == f"{one} / {other}"
    assert mean("a_seconds") == f"{rate('a_seconds_sum')} / {rate('a_seconds_count')}"


def test_a_quantile_keeps_the_bounds_of_the_buckets() -> None:
    grown = f"rate(a_bucket{{{CHOSEN}}}[$__rate_interval])"
    assert quantile(0.9, "a") == (f"histogram_quantile(0.9, sum by (le, job, instance) ({grown}))")
    assert [query.legend for query in quantiles("a", "ttft")] == [
        f"ttft {said} {{{{job}}}} {{{{instance}}}}" for said in ("p50", "p90", "p99")
    ]
    assert buckets("a") == Query(
        f"sum by (le) ({grown.replace('rate(', 'increase(', 1)})", "{{le}}"
    )
