"""What `replay --metrics-port` says: the calls as the client saw them, and the client itself."""

from __future__ import annotations

from servescope.dashboards.grafana.board import BAD, GOOD, WARNING, Board, Panel, Row
from servescope.dashboards.grafana.promql import (
    SYSTEM,
    Query,
    buckets,
    chosen,
    quantile,
    quantiles,
    rate,
    share,
    total,
)
from servescope.loadgen.validity import INVALID_LAG_S, SUSPECT_CPU, SUSPECT_LAG_S

_MET, _JUDGED = "servescope_slo_met_total", "servescope_slo_judged_total"
_OK = 'status="ok"'
_SENT, _FINISHED = "servescope_calls_sent_total", "servescope_calls_finished_total"

_RUN = (
    Panel(
        "Validity",
        "none",
        (Query(f"{chosen('servescope_run_validity')} == 1", f"{SYSTEM} {{{{validity}}}}"),),
        "What the client's own lateness and load make of the run so far.",
        kind="stat",
        width=4,
        names={" valid$": GOOD, " suspect$": WARNING, " invalid$": BAD},
    ),
    Panel(
        "Plan sent",
        "percentunit",
        (Query(f"{total(_SENT)} / {total('servescope_calls_planned')}"),),
        "Share of the planned calls that were sent.",
        kind="stat",
        width=4,
        top=1,
    ),
    Panel(
        "Finished well",
        "percentunit",
        (Query(f"{total(_FINISHED, _OK)} / {total(_FINISHED)}"),),
        "Share of the finished calls whose status is ok, since the run began.",
        kind="stat",
        width=4,
        limits=(0.999, 0.99),
        top=1,
    ),
    Panel(
        "SLO met",
        "percentunit",
        (Query(f"{total(_MET)} / {total(_JUDGED)}"),),
        "Share of the judged calls that met the SLO, since the run began.",
        kind="stat",
        width=4,
        limits=(0.99, 0.9),
        top=1,
    ),
    Panel(
        "Lag p99",
        "s",
        (Query(quantile(0.99, "servescope_lag_seconds")),),
        "How late the client was with its calls of late; the server has no part in it.",
        kind="stat",
        width=4,
        limits=(SUSPECT_LAG_S, INVALID_LAG_S),
    ),
    Panel(
        "Run time",
        "s",
        (Query(total("servescope_run_seconds")),),
        "Seconds since the run began.",
        kind="stat",
        width=4,
    ),
    Panel(
        "Runs",
        "none",
        (Query(chosen("servescope_run_info")),),
        "The run that each load generator is on, and the system that it is sent to.",
        kind="table",
        width=24,
    ),
)

_CALLS = (
    Panel(
        "Calls so far",
        "short",
        (
            Query(total("servescope_calls_planned"), f"planned {SYSTEM}"),
            Query(total(_SENT), f"sent {SYSTEM}"),
            Query(total(_FINISHED), f"finished {SYSTEM}"),
        ),
        "Calls of the plan, those that were sent and those that have ended.",
    ),
    Panel(
        "Calls a second",
        "reqps",
        (
            Query(rate(_SENT), f"sent {SYSTEM}"),
            Query(rate(_FINISHED), f"finished {SYSTEM}"),
        ),
        "Offered load against throughput: where they part, calls pile up.",
    ),
    Panel(
        "In flight",
        "short",
        (
            Query(total("servescope_calls_in_flight"), f"in flight {SYSTEM}"),
            Query(total("servescope_calls_waiting"), f"wait for a slot {SYSTEM}"),
        ),
        "Calls that the server has, and those that --max-concurrency holds back.",
    ),
    Panel(
        "Finished by status",
        "reqps",
        (Query(rate(_FINISHED, by="status"), f"{{{{status}}}} {SYSTEM}"),),
        "How calls ended, in calls a second; all that is not ok stays in every denominator.",
        names={"^ok ": GOOD},
    ),
    Panel(
        "Tokens a second",
        "suffix: tok/s",
        (
            Query(rate("servescope_input_tokens_total"), f"prompts {SYSTEM}"),
            Query(rate("servescope_output_tokens_total"), f"answers {SYSTEM}"),
        ),
        "Tokens of the prompts and of the answers of finished calls.",
    ),
    Panel(
        "Calls that meet the SLO",
        "reqps",
        (Query(rate(_MET), f"goodput {SYSTEM}"), Query(rate(_JUDGED), f"judged {SYSTEM}")),
        "Goodput against the calls that were judged; empty without --slo.",
    ),
    Panel(
        "SLO attainment",
        "percentunit",
        (Query(share(_MET, _JUDGED)),),
        "Share of the calls judged of late that met the SLO.",
        limits=(0.99, 0.9),
        top=1,
    ),
)

_LATENCY = (
    Panel(
        "TTFT from sent",
        "s",
        quantiles("servescope_ttft_seconds"),
        "Time to first token from the moment the call was sent.",
    ),
    Panel(
        "TTFT from due",
        "s",
        quantiles("servescope_ttft_due_seconds"),
        "Time to first token from the planned moment: it holds what the client waited too.",
    ),
    Panel(
        "TTFT over time",
        "short",
        (buckets("servescope_ttft_seconds"),),
        "How many calls had which time to first token, of all chosen instances.",
        kind="heatmap",
    ),
    Panel(
        "TBT",
        "s",
        quantiles("servescope_tbt_seconds"),
        "Time between two tokens, each gap counted by itself.",
    ),
    Panel(
        "TPOT",
        "s",
        quantiles("servescope_tpot_seconds"),
        "Mean time per output token of a call, after the first.",
    ),
    Panel(
        "E2E",
        "s",
        quantiles("servescope_e2e_seconds"),
        "From sent to the end of the answer.",
    ),
    Panel(
        "JCT",
        "s",
        quantiles("servescope_jct_seconds"),
        "Completion time of whole programs: sessions, agents.",
    ),
)

_CLIENT = (
    Panel(
        "Schedule lag",
        "s",
        quantiles("servescope_lag_seconds"),
        "How long after its moment a call was handed to the network.",
        limits=(SUSPECT_LAG_S, INVALID_LAG_S),
    ),
    Panel(
        "CPU of the client",
        "percentunit",
        (Query(total("servescope_client_cpu_ratio")),),
        "Share of a core that the busiest client process uses.",
        limits=(SUSPECT_CPU,),
        top=1,
    ),
    Panel(
        "Lateness of stamps",
        "s",
        (Query(total("servescope_stamp_lateness_seconds")),),
        "How late moments of arrival were written down, p99 of the last ones.",
    ),
)

BOARD = Board(
    "load-generator",
    "servescope: load generator",
    "What the load generator sees while it replays.",
    "servescope_calls_planned",
    (
        Row("This run", _RUN),
        Row("Calls", _CALLS),
        Row("Latency", _LATENCY),
        Row("The client itself", _CLIENT),
    ),
)
