use crate::config::plan::{Target, TimeoutsPlan};
use parking_lot::Mutex;
use pingora::ErrorType::InvalidCert;
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use pingora::utils::tls::{WrappedX509, parse_x509};
use pingora::{Error, OrErr, Result};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// After so long without a word, the system asks whether a node's machine is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The system counts in 32 bits of milliseconds.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes Pingora's peers of our targets, with every default set that Pingora leaves open.
#[derive(Default)]
pub(super) struct Peers {
    /// Authorities that were read, by file. Few, and a file is read once: a new one needs a new name or a restart.
    authorities: Mutex<HashMap<PathBuf, Arc<CaType>>>,
}

// === impl Peers ===

impl Peers {
    /// The peer at `address`, which is frozen when it takes nothing for so long. Errors: its authority's file cannot be read.
    pub(super) fn peer(
        &self,
        target: &Target,
        address: SocketAddr,
        timeouts: &TimeoutsPlan,
        frozen_after: Duration,
    ) -> Result<HttpPeer> {
        let server_name = target
            .tls
            .as_ref()
            .map(|tls| tls.server_name.to_string())
            .unwrap_or_default();
        let mut peer = HttpPeer::new(address, target.tls.is_some(), server_name);
        let options = &mut peer.options;
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.read_timeout = timeouts.read;
        // While a node takes nothing of a body, Pingora asks neither whether the client is there nor whether the node is
        // frozen, and a timeout of its own it survives. The system's it does not: it ends the connection.
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: KEEP_ALIVE,
            interval: KEEP_ALIVE / 4,
            count: 4,
            #[cfg(target_os = "linux")]
            user_timeout: frozen_after.min(A_DAY),
        });
        options.idle_timeout = Some(timeouts.idle);
        if target.h2 {
            // Without TLS there is nothing to negotiate: HTTP/2 is known beforehand, or spoken by nobody.
            options.alpn = ALPN::H2;
            options.max_h2_streams = 100;
        }
        if let Some(tls) = &target.tls {
            options.verify_cert = tls.verify;
            options.verify_hostname = tls.verify;
            if let Some(path) = &tls.ca {
                options.ca = Some(self.authority(path)?);
            }
        }
        Ok(peer)
    }

    fn authority(&self, path: &Path) -> Result<Arc<CaType>> {
        if let Some(known) = self.authorities.lock().get(path) {
            return Ok(known.clone());
        }
        let read = read_authority(path)?;
        self.authorities
            .lock()
            .insert(path.to_owned(), read.clone());
        Ok(read)
    }
}

fn read_authority(path: &Path) -> Result<Arc<CaType>> {
    let pem = std::fs::read(path).or_err_with(InvalidCert, || {
        format!("cannot read the authority `{}`", path.display())
    })?;
    let mut certificates = Vec::new();
    for der in CertificateDer::pem_slice_iter(&pem) {
        let der = der
            .or_err_with(InvalidCert, || format!("`{}` is not PEM", path.display()))?
            .to_vec();
        // Pingora's parser panics on what is no certificate.
        let certificate = catch_unwind(|| WrappedX509::new(der, parse_x509));
        certificates.push(certificate.map_err(|_| {
            Error::explain(
                InvalidCert,
                format!(
                    "`{}` holds something that is no certificate",
                    path.display()
                ),
            )
        })?);
    }
    Ok(certificates.into())
}
