//! The admin port: the endpoints, rendered from memory.
