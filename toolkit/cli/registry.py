"""Which commands there are: name, module and one line each, so that ``--help`` imports none."""

from __future__ import annotations

from dataclasses import dataclass

DESCRIBE = "Describe a deployment"
MAKE = "Make it"
SERVE = "Serve it"
MEASURE = "Measure and check it"


@dataclass(frozen=True)
class Command:
    """A command: ``module`` below ``toolkit.cli`` exposes ``register(app)``."""

    name: str
    module: str
    summary: str
    panel: str


COMMANDS = (
    Command("init", "init_command", "Write a commented deployment file.", DESCRIBE),
    Command("schema", "schema_command", "Print the JSON Schema of a file.", DESCRIBE),
    Command("releases", "releases_command", "Show what TensorRT-LLM releases have.", DESCRIBE),
    Command("plan", "plan_command", "Decide, without weights, whether it can work.", DESCRIBE),
    Command("migrate", "migrate_command", "From TensorRT engines to the LLM API.", DESCRIBE),
    Command("doctor", "doctor_command", "Check this machine and say what to mend.", DESCRIBE),
    Command("checkpoint", "checkpoint_command", "Get, inspect, verify and pack weights.", MAKE),
    Command("quantize", "quantize_command", "Quantize a checkpoint with ModelOpt.", MAKE),
    Command("build", "build_command", "Build everything a deployment file asks for.", MAKE),
    Command("artifacts", "artifacts_command", "List, verify and prune what was built.", MAKE),
    Command("server", "server_command", "Install and find the Triton server.", SERVE),
    Command("deploy", "deploy_command", "Build, launch Triton and validate it live.", SERVE),
    Command("gateway", "gateway_command", "Serve the OpenAI API before Tritons.", SERVE),
    Command("keys", "keys_command", "Make and remove API keys of the gateway.", SERVE),
    Command("status", "status_command", "Tell what runs and how it is.", SERVE),
    Command("top", "top_command", "Watch requests, tokens and latencies live.", SERVE),
    Command("logs", "logs_command", "Show the log of a running server.", SERVE),
    Command("stop", "stop_command", "Drain and stop a running server.", SERVE),
    Command("validate", "validate_command", "Check a running server; the CI gate.", MEASURE),
    Command("observe", "observe_command", "Write alerts and a dashboard.", MEASURE),
    Command("bench", "bench", "Measure latency and throughput.", MEASURE),
)
