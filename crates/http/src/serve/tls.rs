//! TLS for who has no proxy in front. One certificate, read at the start.

use std::{io, path::Path, sync::Arc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// A certificate and its key, ready to be served.
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

impl Tls {
    /// Reads a chain of certificates, the server's own first, and the key of that one; both are PEM. Errors name the file.
    pub fn open(certificates: &Path, key: &Path) -> io::Result<Self> {
        let wrong = |path: &Path, what: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, format!("`{}`: {what}", path.display()))
        };
        let chain = CertificateDer::pem_file_iter(certificates).and_then(|list| list.collect::<Result<Vec<_>, _>>());
        let chain = chain.map_err(|e| wrong(certificates, &e))?;
        if chain.is_empty() {
            return Err(wrong(certificates, &"holds no certificate"));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, private);
        let mut config = config.map_err(|e| wrong(key, &e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}
