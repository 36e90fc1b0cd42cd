//! Black-box tests over real sockets: one binary, a module per concern.
