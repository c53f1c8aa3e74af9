"""The JSON Schemas of what ``bench`` writes, for those who read it with other tools."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from toolkit.bench.ablation.report import AblationReport
from toolkit.bench.compare.comparison import Comparison
from toolkit.bench.report import BenchReport


def report_schema() -> dict[str, object]:
    """The schema (draft 2020-12) of ``report.json``."""
    return _schema(BenchReport, "Report of toolkit bench")


def comparison_schema() -> dict[str, object]:
    """The schema of what ``bench compare --json`` prints."""
    return _schema(Comparison, "Comparison of toolkit bench compare")


def ablation_schema() -> dict[str, object]:
    """The schema of ``ablation.json``."""
    return _schema(AblationReport, "Report of toolkit bench --ablate")


def _schema(model: type[BaseModel], title: str) -> dict[str, object]:
    schema = model.model_json_schema(mode="serialization")
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": title}
