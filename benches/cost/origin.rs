//! What stands behind the proxies when times are taken: nginx with two files, quick enough not to be what is measured.

use std::fs;

use crate::process::{Line, Running, free_port, fresh_folder};
use crate::request::Body;

/// Starts it on this processor core.
pub(crate) fn start(core: &str) -> Running {
    let folder = fresh_folder();
    let address = free_port();
    for body in Body::ALL {
        let file = folder.join(body.path().trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("it has a folder")).expect("a writable folder");
        fs::write(file, vec![b'x'; body.length()]).expect("a writable folder");
    }
    let root = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/errors crit; worker_rlimit_nofile 16384;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         keepalive_requests 1000000000; open_file_cache max=8; sendfile on; tcp_nopush on; default_type application/json;\n\
         server {{ listen {address} backlog=4096; root {root}; }} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).expect("a writable folder");
    let words = ["taskset", "-c", core, "nginx", "-e", "stderr", "-c", &file.display().to_string()];
    Running::start(Line::new(words), folder, address)
}
