"""A board: rows of panels, described in few words and rendered as the JSON that Grafana reads.

Only panels of Grafana's own are used. What a line is has a hue and a dash of its own, and the
systems that stand side by side are shades of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from servescope.dashboards.grafana.promql import Query
from servescope.reports.canvas import PALETTE

SCHEMA = 39  # Grafana 11.0's; what is newer brings it up to date as it reads it
WIDTH = 24  # of a board, in Grafana's columns
HEIGHTS = {"timeseries": 8, "heatmap": 8, "stat": 4, "table": 6}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GOOD, WARNING, BAD = PALETTE[2], PALETTE[4], PALETTE[1]
DASHES = (
    {"fill": "solid"},
    {"fill": "dash", "dash": [10, 6]},
    {"fill": "dot", "dash": [0, 8]},
)


@dataclass(frozen=True, slots=True)
class Panel:
    """Queries that are drawn together, their unit by Grafana's name, and a sentence on them.

    `limits` are the values from which it is a warning and from which it is bad; where the second is
    the lower one, less is worse. `top` is the end of the axis; `names` gives series, by a regular
    expression of their legend, a colour.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    says: str
    kind: Literal["timeseries", "stat", "heatmap", "table"] = "timeseries"
    width: int = 8
    limits: tuple[float, ...] = ()
    top: float | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def rendered(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Return the panel as Grafana's JSON, at a place of the board's grid."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.says,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": HEIGHTS[self.kind]},
            "targets": [
                self._target(query, letter)
                for query, letter in zip(self.queries, self._letters(), strict=True)
            ],
            "fieldConfig": {"defaults": self._defaults(), "overrides": list(self._overrides())},
            "options": _OPTIONS[self.kind],
            **({"transformations": _LABELS_ALONE} if self.kind == "table" else {}),
        }

    def _letters(self) -> Sequence[str]:
        return [chr(ord("A") + number) for number in range(len(self.queries))]

    def _target(self, query: Query, letter: str) -> dict[str, Any]:
        formats = {"heatmap": "heatmap", "table": "table"}
        return {
            "refId": letter,
            "datasource": SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": formats.get(self.kind, "time_series"),
            "range": self.kind != "table",
            "instant": self.kind == "table",
        }

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "min": 0,
            "color": {"mode": "shades", "fixedColor": PALETTE[0]},
            "thresholds": {"mode": "absolute", "steps": self._steps()},
        }
        if self.top is not None:
            defaults["max"] = self.top
        if self.kind == "stat":
            defaults["color"] = {"mode": "thresholds"}
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 2,
                "fillOpacity": 0,
                "showPoints": "auto",
                "spanNulls": False,
                "thresholdsStyle": {"mode": "dashed" if self.limits else "off"},
            }
        return defaults

    def _steps(self) -> list[dict[str, Any]]:
        if not self.limits:
            return [{"color": PALETTE[0], "value": None}]
        colours = (GOOD, WARNING, BAD)[: len(self.limits) + 1]
        limits = sorted(self.limits)
        if list(self.limits) != limits:  # less is worse
            colours = colours[::-1]
        return [
            {"color": colour, "value": value}
            for colour, value in zip(colours, (None, *limits), strict=True)
        ]

    def _overrides(self) -> Iterator[dict[str, Any]]:
        if self.kind == "timeseries":
            for number, letter in enumerate(self._letters()):
                colour = {"mode": "shades", "fixedColor": PALETTE[number % len(PALETTE)]}
                dash = DASHES[number % len(DASHES)]
                yield {
                    "matcher": {"id": "byFrameRefID", "options": letter},
                    "properties": [
                        {"id": "color", "value": colour},
                        {"id": "custom.lineStyle", "value": dash},
                    ],
                }
        for pattern, named in self.names.items():
            fixed = {"mode": "fixed", "fixedColor": named}
            yield {
                "matcher": {"id": "byRegexp", "options": f"/{pattern}/"},
                "properties": [{"id": "color", "value": fixed}],
            }


_LEGEND = {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max", "lastNotNull"]}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {**_LEGEND, "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
        "wideLayout": True,
    },
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Cividis", "steps": 64},  # colour-blind safe too
        "yAxis": {"unit": "s"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "legend": {"show": True},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}
_LABELS_ALONE = [
    {
        "id": "organize",
        "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True}},
    }
]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A page of Grafana; the jobs and instances to choose from are those that have `anchor`."""

    name: str
    title: str
    says: str
    anchor: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> list[Panel]:
        """Every panel, in the order in which they stand."""
        return [panel for row in self.rows for panel in row.panels]

    def rendered(self) -> str:
        """Return the board as Grafana's JSON."""
        board = {
            "uid": f"servescope-{self.name}",
            "title": self.title,
            "description": self.says,
            "tags": ["servescope"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,  # one crosshair for all panels
            "refresh": "5s",
            "time": {"from": "now-15m", "to": "now"},
            "timezone": "browser",
            "links": [_TO_THE_OTHERS],
            "annotations": {"list": []},
            "templating": {"list": list(self._variables())},
            "panels": list(self._placed()),
        }
        return json.dumps(board, indent=1) + "\n"

    def _variables(self) -> Iterator[dict[str, Any]]:
        yield {
            "name": "datasource",
            "type": "datasource",
            "label": "Data source",
            "query": "prometheus",
            "refresh": 1,
            "current": {},
        }
        for name, label, query in (
            ("job", "Job", f"label_values({self.anchor}, job)"),
            ("instance", "Instance", f'label_values({self.anchor}{{job=~"$job"}}, instance)'),
        ):
            yield {
                "name": name,
                "type": "query",
                "label": label,
                "datasource": SOURCE,
                "definition": query,
                "query": {"query": query, "refId": name},
                "refresh": 2,  # whenever the time range changes
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]},
            }

    def _placed(self) -> Iterator[dict[str, Any]]:
        number = y = 0
        for row in self.rows:
            number += 1
            place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            yield {
                "id": number,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
            x, y, height = 0, y + 1, 0
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    x, y, height = 0, y + height, 0
                number += 1
                yield panel.rendered(number, x, y)
                x, height = x + panel.width, max(height, HEIGHTS[panel.kind])
            y += height


_TO_THE_OTHERS = {
    "type": "dashboards",
    "title": "servescope",
    "tags": ["servescope"],
    "asDropdown": True,
    "keepTime": True,
    "includeVars": False,
    "targetBlank": False,
}
