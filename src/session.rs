//! The agent's decisions.
