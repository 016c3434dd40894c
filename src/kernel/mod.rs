//! Opens and parses kernel files.
