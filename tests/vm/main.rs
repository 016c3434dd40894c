//! Real microVMs.
