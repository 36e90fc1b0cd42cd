//! Who the client is, by the trusted-proxy rules, and the forwarding fields that tell the application so.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use crate::model::request::Client;
use crate::proxy::cidr::Cidr;
use crate::proxy::head::fields::Field;
use crate::proxy::head::request::Request;

/// The other end of a client's connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether its forwarding fields and its sampled flag are believed.
    pub(crate) is_trusted: bool,
    /// The fields of a peer that is not trusted: the same for each of its requests.
    lines: Vec<u8>,
}

impl Peer {
    /// Judges an address by the trusted networks.
    pub(crate) fn new(address: SocketAddr, trusted: &[Cidr]) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let is_trusted = trusted.iter().any(|network| network.contains(address.ip()));
        let mut lines = Vec::new();
        if !is_trusted {
            let ip = address.ip();
            // writing into a vector cannot fail
            let _ = write!(lines, "X-Forwarded-For: {ip}\r\nX-Real-IP: {ip}\r\nX-Forwarded-Proto: http\r\n");
        }
        Self { address, is_trusted, lines }
    }

    /// The client of a request: the right-most hop that is not a trusted proxy.
    pub(crate) fn client(&self, request: &Request<'_, '_>, trusted: &[Cidr]) -> Client {
        let address = if self.is_trusted { self.behind(request, trusted) } else { self.address.ip() };
        Client { peer: self.address, address }
    }

    fn behind(&self, request: &Request<'_, '_>, trusted: &[Cidr]) -> IpAddr {
        let fields: Vec<&[u8]> = values(request, Field::ForwardedFor).collect();
        if fields.is_empty() {
            let fields: Vec<&[u8]> = values(request, Field::Forwarded).collect();
            return self.nearest(from_the_right(&fields).map(|hop| parse_hop(forwarded_for(hop)?)), trusted);
        }
        self.nearest(from_the_right(&fields).map(parse_hop), trusted)
    }

    /// The first of these hops that is not trusted; what cannot be read ends the search.
    fn nearest(&self, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[Cidr]) -> IpAddr {
        let mut client = self.address.ip();
        for address in hops.map_while(|hop| hop) {
            client = address;
            if !trusted.iter().any(|network| network.contains(address)) {
                break;
            }
        }
        client
    }

    /// Writes the forwarding fields; what a stranger claimed has been left out before.
    pub(crate) fn write(&self, request: &Request<'_, '_>, client: &Client, out: &mut Vec<u8>) {
        if !self.is_trusted {
            out.extend_from_slice(&self.lines);
            write_host(request, out);
            return;
        }
        out.extend_from_slice(b"X-Forwarded-For: ");
        for value in values(request, Field::ForwardedFor).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        // writing into a vector cannot fail
        let _ = write!(out, "{}\r\nX-Real-IP: {}\r\n", self.address.ip(), client.address);
        if values(request, Field::ForwardedProto).next().is_none() {
            out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
        }
        if values(request, Field::ForwardedHost).next().is_none() {
            write_host(request, out);
        }
        if values(request, Field::Forwarded).next().is_some() {
            out.extend_from_slice(b"Forwarded: ");
            for value in values(request, Field::Forwarded).filter(|value| !value.is_empty()) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
            let _ = match self.address.ip() {
                IpAddr::V4(ip) => write!(out, "for={ip};proto=http\r\n"),
                IpAddr::V6(ip) => write!(out, "for=\"[{ip}]\";proto=http\r\n"),
            };
        }
    }
}

fn write_host(request: &Request<'_, '_>, out: &mut Vec<u8>) {
    if let Some(host) = request.host.filter(|host| !host.is_empty()) {
        for part in [&b"X-Forwarded-Host: "[..], host, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

fn values<'b>(request: &Request<'_, 'b>, class: Field) -> impl Iterator<Item = &'b [u8]> {
    request.fields().filter(move |(found, ..)| *found == class).map(|(_, _, value)| value)
}

/// The elements of several lists that are one, the last first.
fn from_the_right<'b>(fields: &[&'b [u8]]) -> impl Iterator<Item = &'b [u8]> {
    fields.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// What an element of `Forwarded` says of the hop before it (RFC 7239, section 4), without its quotes.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    element.split(|byte| *byte == b';').find_map(|pair| {
        let (name, value) = pair.split_at(memchr::memchr(b'=', pair)?);
        let value = &value[1..];
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        name.trim_ascii().eq_ignore_ascii_case(b"for").then_some(bare)
    })
}

/// An address, perhaps with a port, as proxies write it.
fn parse_hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::head::request::{parse, storage};

    const TRUSTED: &str = "10.0.0.0/8";

    fn forwarded(peer: &str, fields: &str) -> (String, String) {
        let trusted = [TRUSTED.parse().unwrap()];
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let mut room = storage();
        let request = parse(text.as_bytes(), &mut room).unwrap();
        let peer = Peer::new(peer.parse().unwrap(), &trusted);
        let client = peer.client(&request, &trusted);
        let mut out = Vec::new();
        peer.write(&request, &client, &mut out);
        (client.address.to_string(), String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_stranger_is_told_by_his_socket_alone() {
        let (client, fields) = forwarded("203.0.113.9:5", "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n");
        assert_eq!(client, "203.0.113.9");
        let expected = "X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nX-Forwarded-Proto: http\r\n\
                        X-Forwarded-Host: h\r\n";
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
        for (fields, client) in [
            ("", "10.0.0.1"),
            ("X-Forwarded-For: 9.9.9.9, 203.0.113.9, 10.0.0.7\r\n", "203.0.113.9"),
            ("X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.1.1.1\r\n", "203.0.113.9"),
            ("X-Forwarded-For: 203.0.113.9:4711\r\n", "203.0.113.9"),
            ("X-Forwarded-For: [2001:db8::1]:80\r\n", "2001:db8::1"),
            ("X-Forwarded-For: 203.0.113.9, unknown, 10.0.0.2\r\n", "10.0.0.2"),
            ("X-Forwarded-For: 10.0.0.3\r\nConnection: x-forwarded-for\r\n", "10.0.0.1"),
        ] {
            assert_eq!(forwarded("10.0.0.1:5", fields).0, client, "{fields:?}");
        }
        let (_, fields) = forwarded("10.0.0.1:5", "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=a\r\n");
        assert!(fields.starts_with("X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nX-Real-IP: 203.0.113.9\r\n"), "{fields}");
        assert!(fields.ends_with("Forwarded: for=a, for=10.0.0.1;proto=http\r\n"), "{fields}");
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_the_same_address() {
        assert_eq!(forwarded("[::ffff:10.0.0.1]:5", "X-Forwarded-For: 203.0.113.9\r\n").0, "203.0.113.9");
    }
}
