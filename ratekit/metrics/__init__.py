"""What a pipeline counts, for those who watch it: Prometheus and OpenTelemetry.

`ratekit.metrics.prometheus` needs `ratekit[prometheus]`, `ratekit.metrics.otel` `ratekit[otel]`.
"""
