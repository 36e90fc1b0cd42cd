//! What is judged: the sidecar, nginx or HAProxy for comparison, or a relay that forwards blindly (to see the oracle fail).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::iter::Cycle;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long a peer may need to listen, on a busy machine and in a debug build.
const START: Duration = Duration::from_secs(20);

/// Which proxy stands between client and origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours.
    Sidecar,
    /// nginx as a reverse proxy, to check the harness and to compare.
    Nginx,
    /// The same that takes HTTP/2 alone.
    NginxHttp2,
    /// HAProxy as a reverse proxy, to compare.
    HaProxy,
    /// Copies bytes: everything that is not clean comes out dirty.
    Relay,
}

impl Kind {
    /// The peer that `ORACLE_PEER` names, else the sidecar.
    pub(crate) fn from_environment() -> Self {
        match std::env::var("ORACLE_PEER").as_deref() {
            Err(_) | Ok("" | "sidecar") => Self::Sidecar,
            Ok("nginx") => Self::Nginx,
            Ok("haproxy") => Self::HaProxy,
            Ok("relay") => Self::Relay,
            Ok(other) => panic!("ORACLE_PEER={other}, expected sidecar, nginx, haproxy or relay"),
        }
    }

    /// The same in the form that speaks HTTP/2; the sidecar for those that have none.
    pub(crate) fn of_http2(self) -> Self {
        match self {
            Self::Nginx | Self::NginxHttp2 => Self::NginxHttp2,
            Self::Sidecar | Self::HaProxy | Self::Relay => Self::Sidecar,
        }
    }

    /// Starts one in front of `origin`.
    pub(crate) fn start(self, origin: SocketAddr) -> Peer {
        let folder = Folder::new();
        match self {
            Self::Sidecar => sidecar(origin, folder),
            Self::Nginx => nginx(origin, folder, ""),
            Self::NginxHttp2 => nginx(origin, folder, " http2"),
            Self::HaProxy => haproxy(origin, folder),
            Self::Relay => Peer { address: relay(origin), process: None, folder },
        }
    }
}

/// A running peer; it ends with the value.
pub(crate) struct Peer {
    /// Where its proxy listens.
    pub(crate) address: SocketAddr,
    process: Option<Child>,
    folder: Folder,
}

impl Peer {
    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("stderr")).unwrap_or_default()
    }

    /// Whether its process has ended by itself.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _gone_is_fine = process.kill();
            let _gone_is_fine = process.wait();
        }
    }
}

/// A folder of its own that goes away with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("oracle-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a writable target folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _leftovers_are_harmless = fs::remove_dir_all(&self.0);
    }
}

/// The program that is tried: `SIDECAR_BIN`, such as the build that is shipped, else the one that cargo has built.
fn binary() -> String {
    let chosen = std::env::var("SIDECAR_BIN").ok().filter(|path| !path.is_empty());
    chosen.unwrap_or_else(|| env!("CARGO_BIN_EXE_content-factory-sidecar").to_owned())
}

fn sidecar(origin: SocketAddr, folder: Folder) -> Peer {
    let stderr = fs::File::create(folder.0.join("stderr")).expect("a writable folder");
    let mut process = Command::new(binary())
        .env_clear()
        .current_dir(&folder.0)
        .args(["run", "--upstream", &format!("http://{origin}"), "--listen", "127.0.0.1:0"])
        .args(["--admin", "127.0.0.1:0", "--otlp", "http://127.0.0.1:1", "--data-dir", "data"])
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("the sidecar starts");
    let output = process.stdout.take().expect("piped");
    let (found, address) = mpsc::channel();
    // Reads on after the address, so that the sidecar never writes into a full pipe.
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("proxy ") {
                let _late_is_fine = found.send(rest.split(' ').next().and_then(|text| text.parse().ok()));
            }
        }
    });
    let mut peer = Peer { address: origin, process: Some(process), folder };
    match address.recv_timeout(START) {
        Ok(Some(address)) => peer.address = address,
        _ => panic!("the sidecar named no proxy address within {START:?}; it said:\n{}", peer.log()),
    }
    peer
}

fn nginx(origin: SocketAddr, folder: Folder, protocol: &str) -> Peer {
    let address = free_port();
    let root = folder.0.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {root}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/stderr crit;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; {temporary}\
         upstream origin {{ server {origin}; keepalive 16; }}\n\
         map $http_upgrade $hop {{ default upgrade; '' ''; }}\n\
         server {{ listen {address}{protocol}; server_name nginx.example; client_max_body_size 0; large_client_header_buffers 8 32k; location / {{\n\
         proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Host $host;\n\
         proxy_set_header Connection $hop; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_request_buffering off; proxy_buffering off; }} }} }}\n"
    );
    let file = folder.0.join("nginx.conf");
    fs::write(&file, config).expect("a writable folder");
    listening(address, Command::new("nginx").args(["-e", "stderr", "-c"]).arg(&file), folder)
}

fn haproxy(origin: SocketAddr, folder: Folder) -> Peer {
    let address = free_port();
    // A buffer that takes the corpus's large heads; all else as HAProxy has it.
    let config = format!(
        "global\n maxconn 256\n tune.bufsize 65536\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         frontend proxy\n bind {address}\n default_backend application\n\
         backend application\n server origin {origin}\n"
    );
    let file = folder.0.join("haproxy.cfg");
    fs::write(&file, config).expect("a writable folder");
    listening(address, Command::new("haproxy").args(["-db", "-f"]).arg(&file), folder)
}

/// Where programs are, those included that Debian keeps out of a user's PATH.
pub(crate) fn path() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Below the range from which the kernel takes ports for outgoing connections: between the moment a port is found free
/// and the moment a proxy binds it, none of the run's many connections can take it.
const PORTS: Range<u16> = 20_000..32_000;

/// A port that nobody listens on, and that no other peer of this process was given.
fn free_port() -> SocketAddr {
    static NEXT: LazyLock<Mutex<Cycle<Range<u16>>>> = LazyLock::new(|| {
        let mut ports = PORTS.cycle();
        // two runs at once begin apart
        ports.nth(std::process::id() as usize * 251 % PORTS.len());
        Mutex::new(ports)
    });
    let mut ports = NEXT.lock().expect("not poisoned");
    let free = ports.by_ref().take(PORTS.len()).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.and_then(|free| free.local_addr().ok()).expect("a free port")
}

/// Starts somebody else's proxy and waits until it listens.
fn listening(address: SocketAddr, command: &mut Command, folder: Folder) -> Peer {
    let log = fs::File::create(folder.0.join("stderr")).expect("a writable folder");
    let process = command.env("PATH", path()).stdout(Stdio::null()).stderr(log).spawn();
    let process =
        process.unwrap_or_else(|error| panic!("{command:?}: {error}, expected it installed: tests/setup/debian.sh"));
    let peer = Peer { address, process: Some(process), folder };
    let until = Instant::now() + START;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "{command:?} does not listen; it said:\n{}", peer.log());
        thread::park_timeout(Duration::from_millis(20));
    }
    peer
}

fn relay(origin: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(origin) else { continue };
            let (client_half, upstream_half) = (client.try_clone(), upstream.try_clone());
            if let (Ok(client_half), Ok(upstream_half)) = (client_half, upstream_half) {
                thread::spawn(move || copy(client, upstream));
                thread::spawn(move || copy(upstream_half, client_half));
            }
        }
    });
    address
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(count) if count > 0 => {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    let _gone_is_fine = to.shutdown(Shutdown::Write);
}
