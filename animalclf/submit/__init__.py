"""One job on a running Ray cluster: checks before it is sent, its log, its true exit status, and where its results are.

Does what `ray job submit` does and more: that shows the log too, but returns 0 for a stopped job.
"""
