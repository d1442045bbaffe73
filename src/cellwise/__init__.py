"""cellwise."""
