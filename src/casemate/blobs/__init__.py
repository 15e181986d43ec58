"""Objects: files of jobs, templates and what a tenant shares, on a local disk or in S3."""
