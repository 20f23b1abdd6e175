"""Pages: blocks, figures and sections of a report, drawn into one file."""

from servescope.reports.report import sections_of, story_of, write
from servescope.reports.story import Story

__all__ = ["Story", "sections_of", "story_of", "write"]
