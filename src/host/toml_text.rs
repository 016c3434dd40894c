//! TOML that people write: what does not fit is told by its place, in one line.

use super::text::Safe;
use serde::de::DeserializeOwned;

/// Why a text is not what was expected. It is not quoted: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {}", Safe(message))]
pub struct TomlError {
    /// Where, from 1.
    pub line: usize,
    /// Where in the line, in characters from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        TomlError {
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
            message: error.message().trim_end().to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    #[test]
    fn an_error_is_one_line_with_its_place() {
        let error = super::read::<toml::Table>("a = \"é\"\nb = \"é\" 2").unwrap_err();
        assert_eq!((error.line, error.column), (2, 9), "{error}");
        let error = super::read::<Nothing>("\"x\\ny\\u001b[2J\" = 1").unwrap_err().to_string();
        assert!(error.starts_with("line 1, column 1: unknown field"), "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}
