"""A small content factory: products become scripts, scripts become videos, videos are published.

It exists to be watched. It has the shape of a real one (FastAPI under gunicorn, Celery on Redis, SQLAlchemy on
PostgreSQL) and knows nothing of the sidecar in front of it: no SDK, no instrumentation. The one thing it does for
whoever looks for a request later is to write the trace id it was given into its log.
"""
