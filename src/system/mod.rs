//! CPU, memory, disk and network of the node, and our own process.
