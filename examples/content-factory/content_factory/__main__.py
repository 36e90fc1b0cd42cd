"""`python -m content_factory` creates the tables; once, before the processes that share them start."""

from content_factory.database import Base, engine

Base.metadata.create_all(engine)
