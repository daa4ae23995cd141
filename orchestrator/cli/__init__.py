"""One file per verb; `output` owns stdout, `diagnostics` owns stderr and exit codes."""
