"""Where documents live: two ports (documents, claims), their back ends, and the job store built once on top."""
