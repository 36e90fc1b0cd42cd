//! Who is asking, and from where: told by the socket and its certificate, never by an address in a header that a client writes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Who is at the other end of the connection, as an extension of each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// The peer of the socket.
    pub(super) address: IpAddr,
    /// Whether it has shown a certificate of `admin.tls.client_ca`.
    pub(super) is_certified: bool,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Probes, and the word of `/health`.
    Bare,
    /// Reads everything.
    Full,
    /// Also changes something, or makes work.
    Write,
}

impl Reach {
    /// As much of it as changes nothing.
    pub(super) fn reading(self) -> Self {
        self.min(Self::Full)
    }
}

impl Peer {
    /// Whether it is a process of this machine, or of this pod.
    pub(super) fn is_loopback(self) -> bool {
        self.address.to_canonical().is_loopback()
    }
}

/// A block of addresses, such as `10.0.0.0/8` or `192.0.2.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads a block; an address alone is a block of one.
    ///
    /// `None` when the address or the length of the prefix is none. IPv4-mapped addresses count as IPv4.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let written: IpAddr = address.trim().parse().ok()?;
        let address = written.to_canonical();
        let mapped_bits = if written == address { 0 } else { 96 };
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(widest), |prefix| prefix.checked_sub(mapped_bits))?;
        (prefix <= widest).then_some(Self { address, prefix })
    }

    /// Whether the address is in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = u32::from(own) ^ u32::from(other);
                differing.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = u128::from(own) ^ u128::from(other);
                differing.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Whether a page on another site may not have sent this request: the `Host` of a request to loopback is an
/// address or `localhost`, never a name that somebody's DNS points at 127.0.0.1 (DNS rebinding).
pub(super) fn is_local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((literal, _)) => return literal.parse::<Ipv6Addr>().is_ok(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// The key of a peer in a table: an IPv6 client owns a /64, so the rest of the address is no identity.
pub(super) fn peer_key(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_are_read_with_and_without_a_prefix() {
        for (text, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "8.8.8.8", "::2"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
            ("::ffff:10.0.0.0/104", "10.200.0.1", "11.0.0.1"),
            ("fe80::/10", "fe80::1", "fec0::1"),
        ] {
            let network = Network::parse(text).unwrap();
            assert!(network.contains(ip(inside)), "{text} {inside}");
            assert!(!network.contains(ip(outside)), "{text} {outside}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "x", "10.0.0.0/-1", "::ffff:10.0.0.0/8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_of_somebody_else_is_no_local_host() {
        for host in ["localhost", "localhost:18090", "127.0.0.1:18090", "[::1]:18090", "app.localhost", "10.0.0.1"] {
            assert!(is_local_host(host), "{host}");
        }
        for host in ["evil.example", "evil.example:18090", "localhost.evil.example", "[x]", ""] {
            assert!(!is_local_host(host), "{host}");
        }
    }

    #[test]
    fn an_ipv6_client_cannot_change_its_key_within_its_network() {
        assert_eq!(peer_key(ip("2001:db8::1")), peer_key(ip("2001:db8::ffff:2")));
        assert_eq!(peer_key(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
