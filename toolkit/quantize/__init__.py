"""ModelOpt post-training quantization: formats, calibration, export, export check, accuracy gate."""
