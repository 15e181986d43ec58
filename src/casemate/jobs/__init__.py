"""Jobs: durable, queued executions with files, retries, logs and artifacts."""
