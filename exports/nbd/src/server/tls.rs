//! Who may connect encrypted, and as whom the server shows itself.

use crate::pump::{self, certificates};
use crate::socket::Socket;
use adit_core::{Error, Problem, Result};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A server's certificate, and whom it lets in. PSK is not supported: the library has none.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    required: bool,
}

impl Tls {
    /// Reads a chain of certificates and its key, both PEM. With `clients`, certificates of
    /// authorities, only clients that show a certificate of theirs are let in. With `required`,
    /// those that do not encrypt are not served.
    ///
    /// Errors: `Invalid` for files that hold no certificate or no key, or that do not fit.
    pub fn open(
        certificate: &Path,
        key: &Path,
        clients: Option<&Path>,
        required: bool,
    ) -> Result<Tls> {
        let bad = |path: &Path, why: String| {
            Error::invalid(Problem::BadValue, format!("{}: {why}", path.display()))
                .advise("give PEM files: certificates with the server's first, and its key")
        };
        let chain = certificates(certificate).map_err(|why| bad(certificate, why))?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| bad(key, why.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| bad(certificate, why.to_string()))?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path).map_err(|why| bad(path, why))? {
                    roots.add(authority).map_err(|why| bad(path, why.to_string()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.build().map_err(|why| bad(path, why.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(chain, secret)
            .map_err(|why| bad(certificate, why.to_string()))?;
        Ok(Tls { config: Arc::new(config), required })
    }

    pub(super) fn is_required(&self) -> bool {
        self.required
    }

    /// Encrypts a connection from here on, and gives its inside.
    pub(super) fn enter(&self, outside: &Socket) -> io::Result<Socket> {
        let connection =
            ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        pump::enter(connection.into(), outside)
    }
}
