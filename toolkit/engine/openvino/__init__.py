"""The CPU runtime: a checkpoint becomes OpenVINO IR that a paged-attention engine runs."""
