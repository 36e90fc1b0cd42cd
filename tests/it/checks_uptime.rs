//! What checks remember over a restart: kept in the data folder, whatever stands there.

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::port::Port;
use crate::rig::{Sidecar, echo_application};

/// A sidecar that looks at this port, and keeps in this folder.
async fn start(folder: &Path, port: &Port) -> Sidecar {
    let yaml = format!(
        "checks:\n  door: {{kind: tcp, address: \"{}\", period: 200ms, timeout: 190ms, failure_threshold: 1}}\n",
        port.address()
    );
    let file = folder.join("sidecar.yaml");
    std::fs::write(&file, yaml).expect("a file in a folder of ours");
    let (file, data) = (file.display().to_string(), folder.join("data").display().to_string());
    Sidecar::start(echo_application().await, &["--config", &file, "--data-dir", &data], &[]).await
}

/// The check once this is true of it.
async fn until(sidecar: &Sidecar, wanted: impl Fn(&Value) -> bool) -> Value {
    let check = |body: &str| serde_json::from_str::<Value>(body).expect("JSON");
    let body = sidecar.eventually("/api/v1/monitoring/checks/door", |_, body| wanted(&check(body))).await;
    check(&body)
}

async fn end(mut sidecar: Sidecar) -> String {
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    sidecar.log()
}

#[tokio::test]
async fn the_uptime_and_the_last_success_of_a_check_outlive_the_sidecar() {
    let (folder, port) = (TempDir::new().expect("a folder"), Port::reserve());
    let open = TcpListener::bind(port.address()).expect("the port is kept for us");
    let sidecar = start(folder.path(), &port).await;
    let good = until(&sidecar, |check| check["streak"].as_u64() >= Some(3)).await;
    assert_eq!((&good["status"], &good["uptime_24h_ratio"]), (&"healthy".into(), &1.0.into()));
    end(sidecar).await;
    drop(open);
    let sidecar = start(folder.path(), &port).await;
    // the file is read as soon as the folder is had, which may be after the first result
    let known = |check: &Value| check["last_ok"].is_f64() && check["status"] == "unhealthy";
    let bad = until(&sidecar, known).await;
    let ratio = bad["uptime_24h_ratio"].as_f64().expect("a share");
    assert!(ratio > 0.0 && ratio < 1.0, "{bad}");
    assert!(bad["last_ok"].as_f64() >= good["last_ok"].as_f64(), "{bad}");
    end(sidecar).await;
    let kept = std::fs::read_to_string(folder.path().join("data/checks.json")).expect("it was written");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    let [good, all] = [1, 2].map(|part| {
        kept["door"]["uptime"].as_array().expect("counts").iter().filter_map(|count| count[part].as_u64()).sum::<u64>()
    });
    assert!(good >= 3 && all > good, "{kept}");
}

#[tokio::test]
async fn a_file_that_is_broken_is_told_and_replaced() {
    let (folder, port) = (TempDir::new().expect("a folder"), Port::reserve());
    let _open = TcpListener::bind(port.address()).expect("the port is kept for us");
    let file = folder.path().join("data/checks.json");
    std::fs::create_dir(folder.path().join("data")).expect("a folder in ours");
    for (broken, is_told) in [
        ("{\"door\": canary", true),
        ("[[[", true),
        ("{\"door\":{\"uptime\":[[1,2,3],7,null],\"last_ok\":\"x\"}}", false),
    ] {
        std::fs::write(&file, broken).expect("a file");
        let sidecar = start(folder.path(), &port).await;
        let check = until(&sidecar, |check| check["streak"].as_u64() >= Some(2)).await;
        assert_eq!((&check["status"], &check["uptime_24h_ratio"]), (&"healthy".into(), &1.0.into()), "{broken}");
        let log = end(sidecar).await;
        assert_eq!(log.contains("what checks remember cannot be kept"), is_told, "{broken}: {log}");
        assert!(!log.contains("canary"), "{log}");
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
        assert!(kept["door"]["last_ok"].is_f64(), "{kept}");
    }
}
