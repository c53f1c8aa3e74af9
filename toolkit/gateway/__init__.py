"""An OpenAI-compatible API in front of Tritons: order, route, protect, watch.

Rooms: ``scheduling`` decides (pure, no I/O), ``simulation`` drives the same decisions without a
server, ``triton`` talks to replicas, ``dispatch`` joins the two, ``openai`` speaks the API,
``guard`` keeps out what does not belong, ``telemetry`` tells what happens.
"""
