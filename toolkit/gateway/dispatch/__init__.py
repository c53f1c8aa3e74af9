"""Requests meet replicas: the scheduler's decisions, carried out on an event loop."""

from toolkit.gateway.dispatch.dispatcher import Dispatcher as Dispatcher
from toolkit.gateway.dispatch.health import HealthPolicy as HealthPolicy
from toolkit.gateway.dispatch.models import Models as Models
from toolkit.gateway.dispatch.replicas import Replica as Replica
