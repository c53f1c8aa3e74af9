"""The real scheduler in front of simulated engines: to try a policy, a class, a machine.

Three steps predict a deployment's latencies under any load, in seconds, without the machine::

    # samples: RequestSample, as a client measured them (or fit_steps with StepSample)
    engine = fit_requests(EngineModel(slots=8, kv_tokens=16384, max_num_tokens=512), samples)
    # or a list of Planned, as recorded
    trace = poisson([ClassLoad("interactive", 2.0, Lengths(120, 0.5), Lengths(60, 0.7), 256)],
                    seconds=300, seed=1)
    run = simulate(trace, deployment.scheduling, {"gpu-0": engine})

``run.summary()`` has percentiles by class, ``run.outcomes`` every request. The same trace, the
same figures: nothing depends on the clock of the machine that simulates.
"""

from toolkit.gateway.simulation.fitting import (
    RequestSample,
    StepSample,
    fit_requests,
    fit_steps,
)
from toolkit.gateway.simulation.model import EngineModel
from toolkit.gateway.simulation.outcome import ClassSummary, Outcome, Run, percentile
from toolkit.gateway.simulation.run import Outage, Simulation, simulate
from toolkit.gateway.simulation.trace import (
    ClassLoad,
    Lengths,
    Planned,
    Talk,
    conversations,
    poisson,
)

__all__ = [
    "ClassLoad",
    "ClassSummary",
    "EngineModel",
    "Lengths",
    "Outage",
    "Outcome",
    "Planned",
    "RequestSample",
    "Run",
    "Simulation",
    "StepSample",
    "Talk",
    "conversations",
    "fit_requests",
    "fit_steps",
    "percentile",
    "poisson",
    "simulate",
]
