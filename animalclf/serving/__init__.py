"""A model behind HTTP: Ray Serve replicas classify, and this process answers requests and serves a page. Nothing of a
request is stored."""
