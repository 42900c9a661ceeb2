//! NBD URIs: `nbd://HOST[:PORT]/EXPORT` and `nbd+unix:///EXPORT?socket=PATH`; `nbds` and
//! `nbds+unix` are encrypted, with `tls-certificates=FOLDER` and perhaps `tls-hostname=NAME`.
//!
//! Source: the NBD URI document of the NetworkBlockDevice project, `doc/uri.md`; the names of the
//! TLS parameters are those that libnbd documents.

use adit_core::{Error, Problem, Result};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

const DEFAULT_PORT: u16 = 10809;

/// Where an export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(super) place: Place,
    pub(super) export: String,
    pub(super) tls: Option<TlsPlace>,
}

/// How a connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsPlace {
    /// With `ca-cert.pem` and what else there is.
    pub(super) folder: Option<PathBuf>,
    /// Whom the server's certificate must name, if not the host of the address.
    pub(super) hostname: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Address {
    /// An export behind a Unix socket.
    pub fn unix(socket: impl Into<PathBuf>, export: impl Into<String>) -> Address {
        Address { place: Place::Unix(socket.into()), export: export.into(), tls: None }
    }

    /// An export behind a TCP port.
    pub fn tcp(host: impl Into<String>, port: u16, export: impl Into<String>) -> Address {
        Address { place: Place::Tcp(host.into(), port), export: export.into(), tls: None }
    }

    /// Encrypts connections: `folder` holds `ca-cert.pem`, whose certificates are trusted, and
    /// perhaps `client-cert.pem` with `client-key.pem`.
    pub fn encrypted(mut self, folder: impl Into<PathBuf>) -> Address {
        self.tls.get_or_insert_default().folder = Some(folder.into());
        self
    }

    /// The machine it is on.
    pub(super) fn host(&self) -> &str {
        match &self.place {
            Place::Tcp(host, _) => host,
            Place::Unix(_) => "localhost",
        }
    }

    pub(super) fn layer(&self) -> String {
        format!("NBD export {self}")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = self.export.escape_debug();
        let scheme = if self.tls.is_some() { "nbds" } else { "nbd" };
        match &self.place {
            Place::Tcp(host, port) if host.contains(':') => {
                write!(f, "{scheme}://[{host}]:{port}/{export}")
            }
            Place::Tcp(host, port) => write!(f, "{scheme}://{host}:{port}/{export}"),
            Place::Unix(path) => write!(f, "{scheme}+unix:///{export}?socket={}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Address> {
        let bad = |why: &str| {
            Error::invalid(Problem::BadValue, format!("{uri:?}: {why}"))
                .advise("write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH")
        };
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| bad("no scheme"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let export = decode(export).ok_or_else(|| bad("a broken % escape"))?;
        let export = String::from_utf8(export).map_err(|_| bad("the export is not UTF-8"))?;
        if export.len() > crate::protocol::STRING_BYTES_MAX {
            return Err(bad("the name of the export is too long"));
        }
        let parameter = |name: &str| {
            let mut parts = query.split('&').filter_map(|part| part.split_once('='));
            parts.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let place = match scheme {
            "nbd" | "nbd+tcp" | "nbds" | "nbds+tcp" => {
                let (host, port) =
                    host_and_port(authority).ok_or_else(|| bad("no host and port"))?;
                Place::Tcp(host, port)
            }
            "nbd+unix" | "nbds+unix" => {
                let socket = parameter("socket").filter(|_| authority.is_empty());
                let path = socket.and_then(decode).filter(|path| !path.is_empty());
                let path = path.ok_or_else(|| bad("no socket=PATH"))?;
                Place::Unix(OsString::from_vec(path).into())
            }
            _ => return Err(bad("an unknown scheme")),
        };
        let tls = if scheme.starts_with("nbds") { Some(tls_of(&parameter)?) } else { None };
        Ok(Address { place, export, tls })
    }
}

fn tls_of<'a>(parameter: &impl Fn(&str) -> Option<&'a str>) -> Result<TlsPlace> {
    if parameter("tls-psk-file").is_some() {
        return Err(Error::unsupported("keys that both sides know already (TLS-PSK)")
            .advise("the library that encrypts knows certificates only: use tls-certificates="));
    }
    let text = |name: &str| {
        let broken = || Error::invalid(Problem::BadValue, format!("{name}= has a broken % escape"));
        parameter(name).map(|value| decode(value).ok_or_else(broken)).transpose()
    };
    let folder = text("tls-certificates")?.map(|path| OsString::from_vec(path).into());
    let hostname = text("tls-hostname")?.map(|name| String::from_utf8_lossy(&name).into_owned());
    Ok(TlsPlace { folder, hostname })
}

fn host_and_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().ok()? };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            _ => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood() {
        let parse = |uri: &str| uri.parse::<Address>().unwrap();
        assert_eq!(parse("nbd://host/disk"), Address::tcp("host", 10809, "disk"));
        assert_eq!(parse("nbd://[::1]:99/a%20b"), Address::tcp("::1", 99, "a b"));
        assert_eq!(parse("nbd://10.0.0.1:7"), Address::tcp("10.0.0.1", 7, ""));
        assert_eq!(parse("nbd+unix:///x?socket=/run/a%3fb"), Address::unix("/run/a?b", "x"));
    }

    #[test]
    fn an_encrypted_address_says_whom_to_trust() {
        let parse = |uri: &str| uri.parse::<Address>().unwrap();
        let plain = Address::tcp("h", 10809, "x").encrypted("/a b");
        assert_eq!(parse("nbds://h/x?tls-certificates=/a%20b"), plain);
        assert_eq!(plain.to_string(), "nbds://h:10809/x");
        let unix = parse("nbds+unix:///?socket=/s&tls-certificates=/c&tls-hostname=web");
        assert_eq!(unix.tls.unwrap().hostname.as_deref(), Some("web"));
        let psk = "nbds://h/x?tls-psk-file=/keys".parse::<Address>().unwrap_err();
        assert_eq!(psk.kind(), adit_core::Kind::Unsupported);
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_two_forms() {
        for uri in ["nbd:///x", "nbd+unix:///x", "nbd://h:99999/", "x", "nbd://h/%zz", "ftp://h/"] {
            let error = uri.parse::<Address>().unwrap_err();
            assert!(error.advice().unwrap().contains("nbd+unix:///EXPORT?socket=PATH"), "{uri}");
        }
    }
}
