"""Four processes, as in production."""

bind = "127.0.0.1:8000"
workers = 4
worker_class = "uvicorn_worker.UvicornWorker"
