//! Real servers of PostgreSQL, and a pooler before them, on ports of their own; they end with their test.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::port::Port;

/// Longer than a server takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The password of every role.
pub(crate) const PASSWORD: &str = "secret-of-the-database";

/// The least that the sidecar needs, as docs/database.md gives it.
pub(crate) const ROLE: &str = include_str!("../../docs/database-role.sql");

/// The application's tables.
const TABLES: &str = "CREATE TABLE products (id bigserial PRIMARY KEY, name text, created_at timestamptz DEFAULT now()); \
     CREATE TABLE videos (id bigserial PRIMARY KEY, status text, created_at timestamptz DEFAULT now()); \
     CREATE TABLE social_media_posts (id bigserial PRIMARY KEY, status text, created_at timestamptz DEFAULT now())";

/// One server.
pub(crate) struct Postgres {
    server: Child,
    pub(crate) address: SocketAddr,
    folder: TempDir,
    owner: Option<(u32, u32)>,
    _port: Port,
}

impl Postgres {
    /// A new server with the application's tables, and the sidecar's role as documented; `settings` are for its command line.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let (folder, owner) = new_folder();
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).expect("a file");
        let mut initdb = command("initdb", owner);
        initdb.args(["-U", "factory", "--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "-D"]);
        initdb.arg(folder.path().join("db")).arg(format!("--pwfile={}", password.display()));
        let postgres = Self::made_by(initdb, folder, owner, settings);
        let mut factory = postgres.connect("factory").await;
        sqlx::raw_sql(TABLES).execute(&mut factory).await.expect("tables");
        let role = ROLE.replace("CHANGE-ME", PASSWORD);
        sqlx::raw_sql(AssertSqlSafe(role)).execute(&mut factory).await.expect("the documented role");
        postgres
    }

    /// A server that follows this one, by the slot `follower`.
    pub(crate) async fn follower(&self) -> Self {
        let (folder, owner) = new_folder();
        let mut copy = command("pg_basebackup", owner);
        copy.env("PGPASSWORD", PASSWORD).args([
            "-h",
            "127.0.0.1",
            "-U",
            "factory",
            "--write-recovery-conf",
            "--no-sync",
        ]);
        copy.args([
            "--checkpoint=fast",
            "--create-slot",
            "--slot=follower",
            "-p",
            &self.address.port().to_string(),
            "-D",
        ]);
        copy.arg(folder.path().join("db"));
        let follower = Self::made_by(copy, folder, owner, &[]);
        drop(follower.connect("factory").await);
        follower
    }

    /// Runs what makes its data, and starts it.
    fn made_by(mut maker: Command, folder: TempDir, owner: Option<(u32, u32)>, settings: &[&str]) -> Self {
        let made = maker.output().expect("PostgreSQL is installed; tests/setup/debian.sh does it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = Port::reserve();
        let address = port.address();
        let server = serve(folder.path(), address, settings, owner);
        Self { server, address, folder, owner, _port: port }
    }

    /// Ends it at once, without a checkpoint; its processes end with it.
    pub(crate) fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::QUIT);
        }
        let _ = self.server.wait();
    }

    /// Starts it with the same data.
    pub(crate) async fn start_again(&mut self) {
        self.server = serve(self.folder.path(), self.address, &[], self.owner);
        drop(self.connect("factory").await);
    }

    /// Where a role reaches it.
    pub(crate) fn url(&self, role: &str) -> String {
        format!("postgresql://{role}:{PASSWORD}@{}/postgres", self.address)
    }

    /// A session of a role, as soon as it answers.
    pub(crate) async fn connect(&self, role: &str) -> PgConnection {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match PgConnection::connect(&self.url(role)).await {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", self.log()),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets the owner of the tables do this.
    pub(crate) async fn run(&self, statements: &str) {
        let mut factory = self.connect("factory").await;
        let done = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut factory).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// One number.
    pub(crate) async fn number(&self, question: &str) -> i64 {
        let mut factory = self.connect("factory").await;
        let question = AssertSqlSafe(question.to_owned());
        sqlx::query_scalar(question).fetch_one(&mut factory).await.expect("a number")
    }

    /// Gives it these files, and switches TLS on: the names are those of its settings.
    pub(crate) async fn encrypt(&self, files: &[(&str, &str)]) {
        for (name, content) in files {
            self.place(name, content);
        }
        for (setting, name) in
            [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")]
        {
            let file = self.folder.path().join(name);
            self.run(&format!("ALTER SYSTEM SET {setting} = '{}'", file.display())).await;
        }
        self.run("ALTER SYSTEM SET ssl = on").await;
        self.reload().await;
    }

    /// Lets in whom these lines of `pg_hba.conf` name.
    pub(crate) async fn admit(&self, hosts: &str) {
        self.place("db/pg_hba.conf", hosts);
        self.reload().await;
    }

    /// Writes a file that only the server may read.
    fn place(&self, name: &str, content: &str) {
        let file = self.folder.path().join(name);
        fs::write(&file, content).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our file");
        if let Some((user, group)) = self.owner {
            chown(&file, Some(user), Some(group)).expect("we are root");
        }
    }

    /// Has it read its settings again, and waits until it has.
    async fn reload(&self) {
        let loaded = "SELECT (extract(epoch FROM pg_conf_load_time()) * 1000000)::int8";
        let before = self.number(loaded).await;
        self.run("SELECT pg_reload_conf()").await;
        let deadline = Instant::now() + PATIENCE;
        while self.number(loaded).await == before {
            assert!(Instant::now() < deadline, "it reads nothing again\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where its socket is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A pooler in transaction mode before a server.
pub(crate) struct PgBouncer {
    pooler: Child,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
    _port: Port,
}

impl PgBouncer {
    /// Starts with one connection to the server, so that all that is asked shares it.
    pub(crate) async fn start(server: &Postgres) -> Self {
        let (folder, owner) = new_folder();
        let port = Port::reserve();
        let (address, target) = (port.address(), server.address);
        let users = folder.path().join("users");
        fs::write(&users, format!("\"cf_sidecar\" \"{PASSWORD}\"\n\"factory\" \"{PASSWORD}\"\n")).expect("a file");
        let settings = format!(
            "[databases]\npostgres = host={} port={} dbname=postgres\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 1\n",
            target.ip(),
            target.port(),
            address.ip(),
            address.port(),
            users.display()
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings).expect("a file");
        if let Some((user, group)) = owner {
            for path in [&users, &file] {
                chown(path, Some(user), Some(group)).expect("we are root");
            }
        }
        let mut command = Command::new(program(&["/usr/sbin/pgbouncer"], "pgbouncer"));
        become_owner(&mut command, owner);
        let pooler = command.arg("-q").arg(&file).stderr(Stdio::null()).spawn().expect("it starts");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not listen");
            sleep(Duration::from_millis(20)).await;
        }
        Self { pooler, address, _folder: folder, _port: port }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.pooler.kill();
        let _ = self.pooler.wait();
    }
}

fn serve(folder: &Path, address: SocketAddr, settings: &[&str], owner: Option<(u32, u32)>) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = command("postgres", owner);
    command.arg("-D").arg(folder.join("db")).args(["-p", &address.port().to_string()]);
    let (sockets, memory) = (format!("unix_socket_directories={}", folder.display()), "shared_buffers=16MB");
    let usual = ["listen_addresses=127.0.0.1", &sockets, "fsync=off", memory];
    for setting in usual.iter().chain(settings) {
        command.args(["-c", setting]);
    }
    command.stdout(Stdio::null()).stderr(log).spawn().expect("postgres is installed; tests/setup/debian.sh does it")
}

/// A folder that the server may enter.
fn new_folder() -> (TempDir, Option<(u32, u32)>) {
    let (folder, owner) = (tempfile::tempdir().expect("a temporary folder"), owner());
    if let Some((user, group)) = owner {
        chown(folder.path(), Some(user), Some(group)).expect("we are root");
    }
    (folder, owner)
}

/// PostgreSQL refuses to run as root: then its files and its process belong to Debian's user for it.
fn owner() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("a list of users");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("the package brings its user");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().expect("a number"));
    Some((fields.next().expect("its user"), fields.next().expect("its group")))
}

fn command(name: &str, owner: Option<(u32, u32)>) -> Command {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    let places: Vec<String> = folders.iter().rev().map(|bin| bin.join(name).display().to_string()).collect();
    let mut command = Command::new(program(&places.iter().map(String::as_str).collect::<Vec<_>>(), name));
    become_owner(&mut command, owner);
    command
}

/// Debian keeps servers out of PATH.
fn program(places: &[&str], name: &str) -> PathBuf {
    places.iter().map(PathBuf::from).find(|path| path.exists()).unwrap_or_else(|| name.into())
}

fn become_owner(command: &mut Command, owner: Option<(u32, u32)>) {
    // a folder that its user may enter
    command.current_dir("/").stdin(Stdio::null());
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
}

/// Answers each connection with these bytes, and keeps it.
pub(crate) fn says(bytes: &'static [u8]) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(bytes);
            held.push(stream);
        }
    });
    address
}
