"""Language models over their vendors' SDKs, each imported only where it is configured."""
