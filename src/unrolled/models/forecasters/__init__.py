"""Networks that continue a time series: all steps of a horizon at once, segment by segment, or step by step."""
