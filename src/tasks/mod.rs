//! Tasks: what runs behind the application, by itself and by its Celery workers.

pub mod celery;
