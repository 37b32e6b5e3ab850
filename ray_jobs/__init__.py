"""What `ray job submit -- python -m ray_jobs.X` runs; a few lines each."""
