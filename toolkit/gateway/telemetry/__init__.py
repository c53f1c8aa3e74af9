"""What the gateway tells of its work: metrics, traces, dashboards."""
