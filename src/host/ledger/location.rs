//! Where a ledger is: `sqlite:PATH` or `postgres://…`, and how it is named without its password.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use url::Url;

/// Where a ledger is. Shown, it has no password and no options.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(Arc<Place>);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Sqlite(PathBuf),
    Postgres(Url),
}

/// Which database program keeps a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Embedded, one file.
    Sqlite,
    /// A server, for many workers.
    Postgres,
}

/// Why a text names no ledger. Never quotes it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Another scheme.
    #[error("a ledger is sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Scheme,
    /// `sqlite:` alone.
    #[error("sqlite: has no path; write sqlite:PATH")]
    NoPath,
    /// `sqlite::memory:`.
    #[error("a ledger in memory would be lost with its process; write sqlite:PATH")]
    Memory,
    /// No URL.
    #[error("the postgres:// address cannot be read: {0}")]
    Url(url::ParseError),
}

impl Location {
    /// An embedded ledger in this file.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Place::Sqlite(path.into())))
    }

    /// Which program keeps it.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match *self.0 {
            Place::Sqlite(_) => Engine::Sqlite,
            Place::Postgres(_) => Engine::Postgres,
        }
    }

    /// The file of an embedded ledger.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Place::Sqlite(path) => Some(path),
            Place::Postgres(_) => None,
        }
    }

    /// What the driver connects to; `mode` is how SQLite opens the file. Has the password.
    pub(super) fn url(&self, mode: &str) -> Result<Url, url::ParseError> {
        match &*self.0 {
            Place::Sqlite(path) => {
                let mut url = Url::parse("sqlite:")?;
                url.set_path(&percent_encoded(path));
                url.set_query(Some(&format!("mode={mode}")));
                Ok(url)
            }
            Place::Postgres(url) => {
                let mut url = url.clone();
                if !url.query_pairs().any(|(key, _)| key == "application_name") {
                    url.query_pairs_mut().append_pair("application_name", "guestmeter");
                }
                Ok(url)
            }
        }
    }
}

/// The driver splits its address at `?` and decodes `%`.
fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                text.push(char::from(*byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if let Some(rest) = text.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return match path {
                "" => Err(LocationError::NoPath),
                ":memory:" => Err(LocationError::Memory),
                path => Ok(Self::sqlite(path)),
            };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Url::parse(text)
                .map(|url| Self(Arc::new(Place::Postgres(url))))
                .map_err(LocationError::Url);
        }
        Err(LocationError::Scheme)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::Postgres(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                shown.set_fragment(None);
                // Only a URL without a host refuses this, and it can have no password.
                let _ = shown.set_password(None);
                f.write_str(shown.as_str())?;
                match url.query_pairs().find(|(key, _)| key == "host") {
                    Some((_, host)) => write!(f, "?host={host}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_shown_without_its_password() {
        for (text, shown) in [
            ("sqlite:/var/lib/l.db", "sqlite:/var/lib/l.db"),
            ("sqlite:///var/lib/l.db", "sqlite:/var/lib/l.db"),
            ("sqlite:l.db", "sqlite:l.db"),
            ("postgres://u:secret@db:5433/cell?sslmode=prefer&password=secret", "postgres://u@db:5433/cell"),
            ("postgresql:///cell?host=/run/pg&password=secret", "postgresql:///cell?host=/run/pg"),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), shown);
            assert!(!format!("{location:?}").contains("secret"));
        }
    }

    #[test]
    fn what_is_no_location_is_told_why_and_not_quoted() {
        for (text, cause) in [
            ("", LocationError::Scheme),
            ("mysql://u:secret@h/d", LocationError::Scheme),
            ("sqlite:", LocationError::NoPath),
            ("sqlite::memory:", LocationError::Memory),
            ("postgres://u:secret@[h/d", LocationError::Url(url::ParseError::InvalidIpv6Address)),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error, cause, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn every_path_reaches_the_driver_whole() {
        use sqlx::ConnectOptions;
        for path in ["/a b/c?d=e#f%20.db", "relative.db", "/ü/x.db"] {
            let url = Location::sqlite(path).url("rwc").unwrap();
            let text = url.as_str().trim_start_matches("sqlite:");
            let (encoded, query) = text.split_once('?').unwrap();
            assert_eq!(query, "mode=rwc");
            let decoded =
                url::form_urlencoded::parse(format!("p={encoded}").as_bytes()).next().unwrap().1.into_owned();
            assert_eq!(decoded, path);
            sqlx::any::AnyConnectOptions::from_url(&url).unwrap();
        }
    }
}
