//! The settings below `telemetry.intake`: where the application's SDKs hand over, and what that may cost.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

use crate::settings::Section;

/// The way in for the application's own telemetry; only there when it is switched on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeConfig {
    /// Where gRPC is expected; both ports take both.
    pub grpc: SocketAddr,
    /// Where HTTP is expected.
    pub http: SocketAddr,
    /// What becomes of metrics that the proxy makes as well.
    pub server_metrics: ServerMetrics,
    /// For all requests under way together, in bytes.
    pub memory: usize,
    /// Connections at once.
    pub connections: usize,
}

/// What becomes of metrics that the proxy makes as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerMetrics {
    /// They are left out: under the same name each request would count twice.
    LeftOut,
    /// They are taken like all others.
    Kept,
}

/// What the largest request needs: itself, and twice as much for what is made of it.
const LEAST_MEMORY: u64 = 64 << 20;

impl IntakeConfig {
    /// Reads the section `telemetry.intake`; `None` when it is switched off.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let about = "whether the application's own SDKs may send their telemetry here, to be redacted, kept and delivered like ours";
        let enabled = section.flag("enabled", false, about);
        let about = "address of OTLP over gRPC, loopback: whoever reaches it may send anything";
        let grpc = loopback(section, "grpc", 4317, about);
        let http = loopback(section, "http", 4318, "address of OTLP over HTTP, loopback; each of the two takes both");
        if enabled && grpc == http && grpc.port() != 0 {
            section.problem("http", http, "another address than that of telemetry.intake.grpc");
        }
        let words = [("leave-out", ServerMetrics::LeftOut), ("keep", ServerMetrics::Kept)];
        let about = "http.server.* of the application under our service.name: leave-out, because the proxy counts the same requests, or keep";
        let server_metrics = section.choice("server_metrics", ServerMetrics::LeftOut, &words, about);
        let about = "memory of all requests that are coming in; the largest may need 64MiB, most need some KiB";
        let memory = section.bytes("memory", LEAST_MEMORY, about);
        if memory < LEAST_MEMORY {
            section.problem("memory", memory, "at least 64MiB, or the largest request would never have room");
        }
        let about = "connections at once; each process of the application has one for each signal";
        let connections = section.number("connections", 128, 1..=65_536, about);
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        enabled.then_some(Self { grpc, http, server_metrics, memory, connections })
    }

    /// Refuses an intake that takes in what is sent from here.
    pub fn refuse_a_circle<'d>(&self, section: &mut Section<'_>, endpoints: impl Iterator<Item = &'d Url> + Clone) {
        for (key, address) in [("grpc", self.grpc), ("http", self.http)] {
            let Some(endpoint) = endpoints.clone().find(|endpoint| leads_to(endpoint, address)) else { continue };
            let expected = format!(
                "another address than that of telemetry.endpoint ({}), or what is sent would come in again: set telemetry.endpoint \
                 (OTEL_EXPORTER_OTLP_ENDPOINT, --otlp) to the collector's address, or telemetry.intake.{key} to a free one",
                endpoint.origin().ascii_serialization()
            );
            section.problem(key, address, &expected);
        }
    }
}

fn loopback(section: &mut Section<'_>, name: &'static str, port: u16, about: &'static str) -> SocketAddr {
    let address = section.address(name, SocketAddr::from(([127, 0, 0, 1], port)), about);
    if !address.ip().is_loopback() {
        section.problem(
            name,
            address,
            "a loopback address such as 127.0.0.1:4317: what comes in is not asked who it is",
        );
    }
    address
}

fn leads_to(endpoint: &Url, address: SocketAddr) -> bool {
    let is = |ip: IpAddr| ip.to_canonical() == address.ip() || ip.is_unspecified();
    let is_here = match endpoint.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => is(ip.into()),
        Some(Host::Ipv6(ip)) => is(ip.into()),
        None => false,
    };
    is_here && endpoint.port_or_known_default() == Some(address.port())
}
