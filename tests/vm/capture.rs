//! Writes the fixture trees.
