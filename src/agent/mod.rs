//! The agent's I/O.
