//! Encrypting our own connections: whom to trust, and who we are.

use super::address::Address;
use crate::pump::{self, certificates};
use crate::socket::Socket;
use adit_core::{Error, Kind, Problem, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

/// What every connection to one server is encrypted with.
#[derive(Clone, Debug)]
pub(super) struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// What an address asks for; nothing if it is one in the clear. Its folder holds what the
    /// servers and clients of others call `ca-cert.pem`, and perhaps `client-cert.pem` with
    /// `client-key.pem`.
    ///
    /// Errors: `Invalid` where the address names no folder, or what is in it is of no use.
    pub(super) fn of(address: &Address) -> Result<Option<ClientTls>> {
        let Some(tls) = &address.tls else { return Ok(None) };
        let folder = tls.folder.as_deref().ok_or_else(|| {
            Error::invalid(Problem::Missing, "whose certificates are to be trusted?")
                .advise("add ?tls-certificates=FOLDER to the address; ca-cert.pem in it is trusted")
        })?;
        let bad = |path: &Path, why: String| {
            Error::invalid(Problem::BadValue, format!("{}: {why}", path.display()))
                .advise("the folder holds PEM files: ca-cert.pem, client-cert.pem, client-key.pem")
        };
        let authority = folder.join("ca-cert.pem");
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&authority).map_err(|why| bad(&authority, why))? {
            roots.add(certificate).map_err(|why| bad(&authority, why.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| bad(&authority, why.to_string()))?
            .with_root_certificates(roots);
        let (certificate, key) = (folder.join("client-cert.pem"), folder.join("client-key.pem"));
        let config = if certificate.exists() {
            let chain = certificates(&certificate).map_err(|why| bad(&certificate, why))?;
            let secret =
                PrivateKeyDer::from_pem_file(&key).map_err(|why| bad(&key, why.to_string()))?;
            let config = builder.with_client_auth_cert(chain, secret);
            config.map_err(|why| bad(&certificate, why.to_string()))?
        } else {
            builder.with_no_client_auth()
        };
        let host = tls.hostname.clone().unwrap_or_else(|| address.host().to_owned());
        let name = ServerName::try_from(host.clone()).map_err(|why| {
            Error::invalid(Problem::BadValue, format!("{host:?}: {why}"))
                .advise("add tls-hostname=NAME to the address: whom the certificate must name")
        })?;
        Ok(Some(ClientTls { config: Arc::new(config), name }))
    }

    /// Encrypts a connection from here on, and gives its inside.
    ///
    /// Errors: `Denied` if the server is not who it should be; `Io`.
    pub(super) fn enter(&self, outside: &Socket) -> Result<Socket> {
        let failed = |why: io::Error| {
            // What the library has to say comes wrapped in an error of the system.
            let refused = why.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            let kind = if refused { Kind::Denied } else { Kind::Io };
            Error::new(kind, Problem::Refused, format!("encrypting the connection: {why}"))
                .advise("check the certificates of both sides, and the name in the server's")
        };
        let mut connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(|why| failed(io::Error::other(why)))?;
        let mut stream = Plain::of(outside).map_err(failed)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(failed)?;
        }
        pump::enter(Connection::from(connection), outside).map_err(failed)
    }
}

/// The socket as the library wants it, for as long as it greets.
struct Plain(File);

impl Plain {
    fn of(socket: &Socket) -> io::Result<Plain> {
        Ok(Plain(File::from(socket.as_fd().try_clone_to_owned()?)))
    }
}

impl Read for Plain {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Plain {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        rustix::net::send(&self.0, buf, rustix::net::SendFlags::NOSIGNAL).map_err(Into::into)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
