"""The outside world, one module each: files, processes, HTTP, devices. Never policy."""
