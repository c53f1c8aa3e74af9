"""Several deployments on one machine: where each goes, and how to deploy it there."""

from toolkit.pipeline.fleet.planning import FleetPlan, PlannedModel, plan_fleet

__all__ = ["FleetPlan", "PlannedModel", "plan_fleet"]
