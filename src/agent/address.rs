//! Socket addresses as they stand on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST};

/// Below 1024: only a privileged guest process can hold it, so the host that dials it knows whom it reached.
pub(super) const PORT_DEFAULT: u32 = 1020;
/// `sun_path` of `sockaddr_un`, its NUL included.
const UNIX_PATH_BYTES_MAX: usize = 108;

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `vsock://any:PORT`: never a concrete CID, since it can change on restore.
    Vsock {
        /// The port.
        port: u32,
    },
    /// `unix://PATH`.
    Unix(PathBuf),
}

/// Where the agent notifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifyAddress {
    /// Nowhere.
    None,
    /// `vsock://2:PORT`: the host.
    Host {
        /// The port.
        port: u32,
    },
    /// `unix://PATH`.
    Unix(PathBuf),
}

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `vsock://` nor `unix://`.
    #[error("must begin with vsock:// or unix://")]
    Scheme,
    /// Not this CID.
    #[error("CID {0:?} is not {1}")]
    Cid(String, &'static str),
    /// Not a port.
    #[error("port {0:?} is not a number from 1 to 4294967294")]
    Port(String),
    /// No path.
    #[error("the path is empty")]
    NoPath,
    /// A relative path depends on who starts the agent from where.
    #[error("the path must be absolute")]
    Relative,
    /// The system's limit.
    #[error("the path has {0} bytes; a Unix socket's has at most 107")]
    Long(usize),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return unix(path).map(Self::Unix);
        }
        let rest = text.strip_prefix("vsock://").ok_or(AddressError::Scheme)?;
        let (cid, port) = cid_and_port(rest)?;
        if cid != "any" {
            let wanted = "\"any\": an agent listens for every CID, as a restore may change its own";
            return Err(AddressError::Cid(cid.to_owned(), wanted));
        }
        Ok(Self::Vsock { port })
    }
}

impl FromStr for NotifyAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(path) = text.strip_prefix("unix://") {
            return unix(path).map(Self::Unix);
        }
        let rest = text.strip_prefix("vsock://").ok_or(AddressError::Scheme)?;
        let (cid, port) = cid_and_port(rest)?;
        if cid.parse() != Ok(VMADDR_CID_HOST) {
            return Err(AddressError::Cid(cid.to_owned(), "2, the host"));
        }
        Ok(Self::Host { port })
    }
}

fn cid_and_port(text: &str) -> Result<(&str, u32), AddressError> {
    let Some((cid, port)) = text.split_once(':') else { return Ok((text, PORT_DEFAULT)) };
    match port.parse() {
        Ok(number) if number != 0 && number != VMADDR_CID_ANY => Ok((cid, number)),
        _ => Err(AddressError::Port(port.to_owned())),
    }
}

fn unix(path: &str) -> Result<PathBuf, AddressError> {
    match path.len() {
        0 => Err(AddressError::NoPath),
        _ if !path.starts_with('/') => Err(AddressError::Relative),
        long if long >= UNIX_PATH_BYTES_MAX => Err(AddressError::Long(long)),
        _ => Ok(PathBuf::from(path)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { port } => write!(f, "vsock://any:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl fmt::Display for NotifyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host { port } => write!(f, "vsock://{VMADDR_CID_HOST}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_the_same() {
        for text in ["vsock://any:1020", "vsock://any:4294967294", "unix:///run/x.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["vsock://2:1020", "unix:///run/x.sock", "none"] {
            assert_eq!(text.parse::<NotifyAddress>().unwrap().to_string(), text);
        }
        assert_eq!("vsock://any".parse(), Ok(Address::Vsock { port: 1020 }));
        assert_eq!("vsock://2:7".parse(), Ok(NotifyAddress::Host { port: 7 }));
        assert_eq!("none".parse(), Ok(NotifyAddress::None));
    }

    #[test]
    fn a_bad_one_says_what_is_wrong() {
        let cases = [
            ("", "must begin with"),
            ("tcp://1.2.3.4:5", "must begin with"),
            ("vsock://3:1020", "CID \"3\" is not \"any\""),
            ("vsock://any:0", "port \"0\""),
            ("vsock://any:", "port \"\""),
            ("vsock://any:99999999999", "port \"99999999999\""),
            ("unix://", "empty"),
            ("unix://run/x", "absolute"),
        ];
        for (text, wanted) in cases {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let long = format!("unix:///{}", "x".repeat(107));
        assert_eq!(long.parse::<Address>(), Err(AddressError::Long(108)));
        assert!("vsock://3:1020".parse::<NotifyAddress>().is_err());
        assert!("vsock://any:1020".parse::<NotifyAddress>().is_err());
    }
}
