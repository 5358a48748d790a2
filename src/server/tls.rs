//! The TLS listener: certificate, key, optional client certificates. The files
//! are read again when they change; a bad one is refused and the old goes on.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsSettings;

/// The certificate in force. One per process, replaced as a whole.
#[derive(Debug)]
pub struct Certificate {
    files: TlsSettings,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    fn load(files: &TlsSettings) -> io::Result<Self> {
        Ok(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(read(files)?),
        })
    }

    /// Reads the files again.
    ///
    /// # Errors
    ///
    /// When they can't be read or key and certificate don't match; the old
    /// certificate stays.
    pub fn reload(&self) -> io::Result<()> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// The files it came from.
    #[must_use]
    pub fn files(&self) -> &TlsSettings {
        &self.files
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// Reads the files and builds the acceptor, and the handle by which the
/// certificate is reloaded.
pub(super) fn acceptor(
    files: &TlsSettings,
    http2: bool,
) -> io::Result<(TlsAcceptor, Arc<Certificate>)> {
    let certificate = Arc::new(Certificate::load(files)?);
    let versions: &[&rustls::SupportedProtocolVersion] = if files.tls13_only {
        &[&rustls::version::TLS13]
    } else {
        rustls::ALL_VERSIONS
    };
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let builder = match &files.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| named(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| named(path, error))?)
        }
        None => builder.with_no_client_auth(),
    };
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Certificate>::clone(&certificate);
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = if http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    Ok((TlsAcceptor::from(Arc::new(config)), certificate))
}

fn read(files: &TlsSettings) -> io::Result<CertifiedKey> {
    let chain = certificates(&files.cert)?;
    let pem = fs::read(&files.key).map_err(|error| named(&files.key, error))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| named(&files.key, error))?;
    let provider = rustls::crypto::CryptoProvider::get_default()
        .ok_or_else(|| io::Error::other("no TLS provider is installed"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| named(&files.cert, error))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = fs::read(path).map_err(|error| named(path, error))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| named(path, error))?;
    if chain.is_empty() {
        return Err(named(path, "no certificate in it"));
    }
    Ok(chain)
}

fn named(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {error}", path.display()),
    )
}
