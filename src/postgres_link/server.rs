//! The way to the server: the address, and TLS where the address asks for it.
//!
//! Done here and not by the driver, so that the server's messages are seen in the clear, and faults keep their own words.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::postgres_link::tls;

/// What a connection runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

/// Whether the connection may do without TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    None,
    IfOffered,
    Always,
}

/// `SSLRequest`: a length, and a version that no protocol has.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Connects to the address that these options name, each of its addresses in turn.
///
/// # Errors
/// Nobody is there, or there is no TLS as it was asked for.
pub(super) async fn connect(to: &PgConnectOptions) -> Result<Box<dyn Stream>, sqlx::Error> {
    let folder = to.get_socket().cloned().or_else(|| to.get_host().starts_with('/').then(|| to.get_host().into()));
    match folder {
        Some(folder) => {
            secured(UnixStream::connect(folder.join(format!(".s.PGSQL.{}", to.get_port()))).await?, to).await
        }
        None => {
            let stream = TcpStream::connect((host(to), to.get_port())).await?;
            stream.set_nodelay(true)?;
            secured(stream, to).await
        }
    }
}

/// Without the brackets that a URL puts around an address of IPv6.
fn host(to: &PgConnectOptions) -> &str {
    to.get_host().trim_start_matches('[').trim_end_matches(']')
}

async fn secured(mut stream: impl Stream + 'static, to: &PgConnectOptions) -> Result<Box<dyn Stream>, sqlx::Error> {
    let need = match to.get_ssl_mode() {
        // to begin without and try again with it is not done: who refuses says so
        PgSslMode::Disable | PgSslMode::Allow => Need::None,
        PgSslMode::Prefer => Need::IfOffered,
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => Need::Always,
    };
    if need == Need::None {
        return Ok(Box::new(stream));
    }
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => Ok(Box::new(tls::over(stream, host(to), to).await?)),
        b'N' if need == Need::IfOffered => Ok(Box::new(stream)),
        b'N' => Err(sqlx::Error::Tls("the server has no TLS".into())),
        _ => Err(sqlx::Error::Protocol("no answer to the question for TLS".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_is_taken_out_of_its_brackets() {
        for (url, expected) in [("postgresql://u@[::1]:5432/x", "::1"), ("postgresql://u@db.local/x", "db.local")] {
            assert_eq!(host(&url.parse().expect("an address")), expected);
        }
    }
}
