//! The proxies: the sidecar with everything on and with export off, and its peers, each as its manual sets up a plain
//! reverse proxy with kept connections and one thread.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::process::{Line, Running, free_port, fresh_folder};
use crate::receiver::Receiver;

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// The sidecar, with metrics and all spans.
    Sidecar,
    /// The sidecar without export: it counts, and writes no span.
    Quiet,
    /// nginx without any telemetry: the mark to beat.
    Nginx,
    /// HAProxy without any telemetry.
    Haproxy,
    /// Envoy without any telemetry.
    Envoy,
    /// Envoy with its OpenTelemetry tracer for all requests, and its access log over OTLP.
    TracingEnvoy,
}

/// Where a proxy stands and where it sends.
struct Place<'a> {
    application: SocketAddr,
    address: SocketAddr,
    /// For peers that take HTTP/2 on a port of its own.
    h2c: SocketAddr,
    receiver: SocketAddr,
    folder: &'a Path,
}

impl Proxy {
    /// The sidecar alone.
    pub(crate) const OWN: [Self; 2] = [Self::Sidecar, Self::Quiet];

    /// The sidecar, and the peers that are installed: they are a comparison, not a requirement.
    pub(crate) fn all() -> Vec<Self> {
        let all = [Self::Sidecar, Self::Quiet, Self::Nginx, Self::Haproxy, Self::Envoy, Self::TracingEnvoy];
        all.into_iter().filter(|proxy| proxy.is_ours() || proxy.is_installed()).collect()
    }

    /// What the tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar, everything on",
            Self::Quiet => "sidecar, export off",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::TracingEnvoy => "Envoy, its telemetry on",
        }
    }

    /// Whether it is the sidecar, with whatever is on.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Sidecar | Self::Quiet)
    }

    /// Whether it sends spans.
    pub(crate) fn traces(self) -> bool {
        matches!(self, Self::Sidecar | Self::TracingEnvoy)
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Sidecar | Self::Quiet => true,
            Self::Nginx => Command::new("nginx").arg("-v").output().is_ok(),
            Self::Haproxy => Command::new("haproxy").arg("-v").output().is_ok(),
            Self::Envoy | Self::TracingEnvoy => python_program("envoy").is_some(),
        }
    }

    /// Starts it in front of `application`, under `wrapper` (a program with its arguments) if that is not empty.
    pub(crate) fn spawn(self, application: SocketAddr, wrapper: &[&str]) -> Running {
        self.spawn_with(application, wrapper, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn spawn_with(
        self,
        application: SocketAddr,
        wrapper: &[&str],
        environment: &[(&str, String)],
    ) -> Running {
        let (folder, receiver) = (fresh_folder(), Receiver::start());
        let address = free_port();
        let has_two_ports = matches!(self, Self::Nginx | Self::Haproxy);
        let h2c = if has_two_ports { free_port() } else { address };
        let place = Place { application, address, h2c, receiver: receiver.address, folder: &folder };
        let line = match self {
            Self::Sidecar => sidecar(&place),
            Self::Quiet => sidecar(&place).env("SIDECAR_TELEMETRY__ENABLED", "false"),
            Self::Nginx => nginx(&place),
            Self::Haproxy => haproxy(&place),
            Self::Envoy => envoy(&place, ""),
            Self::TracingEnvoy => envoy(&place, &envoy_telemetry(&place)),
        };
        let line = environment.iter().fold(line, |line, (name, value)| line.env(name, value));
        Running::spawn(line.under(wrapper), folder, address).with(receiver, h2c)
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self, application: SocketAddr, wrapper: &[&str]) -> Running {
        let running = self.spawn(application, wrapper);
        running.wait();
        running
    }
}

/// Whether the sidecar that is measured was built as the image has it.
pub(crate) fn is_as_shipped() -> bool {
    std::env::var_os("SIDECAR_BIN")
        .is_some_and(|path| Path::new(&path).components().any(|part| part.as_os_str() == "dist"))
}

/// A program of the virtual environment that `make bench` names, if there is one.
pub(crate) fn python_program(name: &str) -> Option<String> {
    let program = Path::new(&std::env::var_os("BENCH_VENV")?).join("bin").join(name);
    program.is_file().then(|| program.display().to_string())
}

fn sidecar(place: &Place<'_>) -> Line {
    let upstream = format!("http://{}", place.application);
    let (listen, otlp) = (place.address.to_string(), format!("http://{}", place.receiver));
    // cargo would build the binary once more, with the features of the tests; `make` has it already, without
    let chosen = std::env::var_os("SIDECAR_BIN").map(|path| path.to_string_lossy().into_owned());
    let program = chosen.as_deref().unwrap_or(env!("CARGO_BIN_EXE_content-factory-sidecar"));
    let arguments = ["run", "--upstream", &upstream, "--listen", &listen, "--admin", "127.0.0.1:0", "--otlp", &otlp];
    Line::new([program].into_iter().chain(arguments).chain(["--data-dir", "data"]))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
}

fn nginx(place: &Place<'_>) -> Line {
    let Place { application, address, h2c, folder, .. } = place;
    let root = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {root}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/errors crit; worker_rlimit_nofile 16384;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; {temporary} keepalive_requests 1000000000;\n\
         upstream application {{ server {application}; keepalive 1024; keepalive_requests 1000000000; }}\n\
         server {{ listen {address} backlog=4096; listen {h2c} http2 backlog=4096;\n\
         location / {{ proxy_pass http://application; proxy_http_version 1.1;\n\
         proxy_set_header Connection ''; proxy_set_header Host $http_host; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).expect("a writable folder");
    Line::new(["nginx", "-e", "stderr", "-c", &file.display().to_string()])
}

fn haproxy(place: &Place<'_>) -> Line {
    let Place { application, address, h2c, folder, .. } = place;
    let config = format!(
        "global\n  nbthread 1\n  maxconn 8192\n\
         defaults\n  mode http\n  http-reuse always\n  timeout connect 1s\n  timeout client 75s\n  timeout server 75s\n\
         listen proxy\n  bind {address} backlog 4096\n  bind {h2c} proto h2 backlog 4096\n  server application {application}\n"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config).expect("a writable folder");
    Line::new(["haproxy", "-db", "-f", &file.display().to_string()])
}

/// `telemetry`: more settings of its connection manager.
fn envoy(place: &Place<'_>, telemetry: &str) -> Line {
    let Place { application, address, receiver, folder, .. } = place;
    let manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "envoy.extensions.filters.http.router.v3.Router";
    let socket = |at: &SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port());
    let cluster = |name: &str, at: &SocketAddr| {
        format!(
            "  - {{name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, endpoints: [\
             {{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}}}\n",
            socket(at)
        )
    };
    let config = format!(
        "static_resources:\n  listeners:\n  - address: {}\n    tcp_backlog_size: 4096\n    filter_chains:\n    - filters:\n\
         \x20     - name: envoy.filters.network.http_connection_manager\n        typed_config:\n\
         \x20         \"@type\": type.googleapis.com/{manager}\n          stat_prefix: proxy\n{telemetry}\
         \x20         route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], \
         routes: [{{match: {{prefix: /}}, route: {{cluster: application}}}}]}}]}}\n\
         \x20         http_filters: [{{name: envoy.filters.http.router, typed_config: \
         {{\"@type\": type.googleapis.com/{router}}}}}]\n\
         \x20 clusters:\n{}{}",
        socket(address),
        cluster("application", application),
        cluster("receiver", receiver),
    );
    let file = folder.join("envoy.yaml");
    fs::write(&file, config).expect("a writable folder");
    let program = python_program("envoy").unwrap_or_default();
    let arguments = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"];
    Line::new([program.as_str()].into_iter().chain(arguments).chain([file.display().to_string().as_str()]))
}

/// Spans of all requests, and the access log, over OTLP by HTTP.
fn envoy_telemetry(place: &Place<'_>) -> String {
    let tracer = "envoy.config.trace.v3.OpenTelemetryConfig";
    let log = "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig";
    let service = |path: &str| {
        let uri = format!("http://{}/v1/{path}", place.receiver);
        format!("http_service: {{http_uri: {{uri: \"{uri}\", cluster: receiver, timeout: 5s}}}}")
    };
    format!(
        "          tracing: {{random_sampling: {{value: 100}}, provider: {{name: envoy.tracers.opentelemetry, typed_config: \
         {{\"@type\": type.googleapis.com/{tracer}, service_name: envoy, {}}}}}}}\n\
         \x20         access_log: [{{name: envoy.access_loggers.open_telemetry, typed_config: \
         {{\"@type\": type.googleapis.com/{log}, {}, \
         body: {{string_value: \"%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %DURATION%\"}}}}}}]\n",
        service("traces"),
        service("logs"),
    )
}
