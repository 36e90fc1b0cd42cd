//! Where a sidecar serves, and how that is told.

use std::io::{self, Write};
use std::net::SocketAddr;

/// Where it serves.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The proxy's port and the application behind it; `None` when the proxy is switched off.
    pub proxy: Option<(SocketAddr, String)>,
    /// The admin port's addresses.
    pub admin: Vec<SocketAddr>,
    /// How the admin port is spoken to: `http` or `https`.
    pub admin_scheme: &'static str,
    /// Where the application's SDKs may send what, none when that is switched off.
    pub intake: Vec<(&'static str, SocketAddr)>,
    /// Where the application may call its AI service, and where that leads; `None` when it is switched off.
    pub egress: Option<(SocketAddr, String)>,
}

impl Addresses {
    /// One line for each address, with the real port where 0 was asked for.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_to(&self, out: &mut (dyn Write + Send)) -> io::Result<()> {
        if let Some((address, upstream)) = &self.proxy {
            writeln!(out, "proxy {address} -> {upstream}")?;
        }
        for address in &self.admin {
            writeln!(out, "admin {}://{address}", self.admin_scheme)?;
        }
        for (protocol, address) in &self.intake {
            writeln!(out, "otlp {protocol} {address}")?;
        }
        if let Some((address, upstream)) = &self.egress {
            writeln!(out, "egress http://{address} -> {upstream}")?;
        }
        out.flush()
    }
}
