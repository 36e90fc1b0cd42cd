//! The command line as people meet it: exit codes, mistakes, help, and the configuration in force.

use std::os::unix::fs::PermissionsExt;

use crate::rig::{PATIENCE, command, echo_application, output};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Environment, arguments, and the value in force.
type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a str);

#[tokio::test]
async fn every_mistake_of_a_configuration_is_listed_at_once_with_exit_code_64() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, "proxy:\n  workers: 0\n  lisen: x\nredis: {url_file: /nowhere}\n").unwrap();
    let path = file.display().to_string();
    let environment = [("SIDECAR_PROXY__UPSTREAM", "not a url"), ("SIDECAR_NO_SUCH", "1")];
    for command in ["run", "check-config", "print-config"] {
        let output = output(&[command, "--config", &path, "--admin", "here"], &environment).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        for expected in [
            "the configuration has 6 mistakes:",
            "proxy.workers: 0, expected a whole number from 1 to",
            "proxy.lisen: unknown key, expected no such key, perhaps proxy.listen",
            "proxy.upstream: not a url, expected",
            "(set in SIDECAR_PROXY__UPSTREAM)",
            "(set in SIDECAR_NO_SUCH)",
            "admin.listen: here, expected",
            "(set in --admin)",
            "redis.url_file: /nowhere, expected a readable file",
            "wrong.yaml",
        ] {
            assert!(said.contains(expected), "{expected:?} is missing in:\n{said}");
        }
    }
}

#[tokio::test]
async fn a_standard_variable_with_a_wrong_value_is_a_named_mistake() {
    let environment = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_TRACES_SAMPLER_ARG", "most")];
    let output = output(&["check-config"], &[&environment[..], &[("OTEL_TRACES_SAMPLER", "sometimes")]].concat()).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for variable in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER"] {
        assert!(said.contains(variable), "{variable} is missing in:\n{said}");
    }
}

#[tokio::test]
async fn the_variable_by_which_the_application_finds_the_sidecar_is_no_setting_of_its_own() {
    let output = output(&["check-config"], &[("SIDECAR_URL", "http://127.0.0.1:18090")]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_file_that_is_missing_or_no_yaml_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yaml");
    for (content, expected) in [("a: [", "expected a YAML document"), ("- a", "expected a mapping")] {
        std::fs::write(&file, content).unwrap();
        let output = output(&["check-config", "--config", &file.display().to_string()], &[]).await;
        assert_eq!(output.status.code(), Some(64));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
    let output = output(&["check-config", "--config", "/nowhere.yaml"], &[]).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("/nowhere.yaml: No such file"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_ends_each_command_with_one_line_and_64() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(path("folder.yaml")).unwrap();
    std::fs::write(path("latin1.yaml"), b"proxy: {upstream: 'http://caf\xe9:8000'}\n").unwrap();
    std::fs::write(path("locked.yaml"), "proxy: {workers: 1}\n").unwrap();
    std::fs::set_permissions(path("locked.yaml"), PermissionsExt::from_mode(0o000)).unwrap();
    let mut rows = vec![
        ("missing.yaml", "No such file or directory"),
        ("folder.yaml", "Is a directory"),
        ("latin1.yaml", "stream did not contain valid UTF-8"),
    ];
    // root reads what it likes
    if std::fs::read(path("locked.yaml")).is_err() {
        rows.push(("locked.yaml", "Permission denied"));
    }
    for (name, found) in rows {
        for command in ["run", "check-config", "print-config"] {
            let output = output(&[command, "--config", &path(name)], &[]).await;
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), said.lines().count()), (Some(64), 2), "{command}: {said}");
            for expected in [name, found, "expected a readable file", "(set in --config)"] {
                assert!(said.contains(expected), "{command}: {expected:?} is missing in:\n{said}");
            }
            assert!(output.stdout.is_empty(), "{command}: no address is named that does not serve");
        }
    }
}

#[tokio::test]
async fn what_print_config_prints_is_a_configuration_and_holds_no_secret() {
    let environment = [
        ("DATABASE_URL", "postgresql://user:canary-4711@db:5432/app"),
        ("REDIS_URL", "redis://:canary-4711@redis:6379/0"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary-4711"),
        ("SENTRY_DSN", "https://canary-4711@sentry.example/1"),
        ("SIDECAR_PROXY__POOL__IDLE", ""),
    ];
    let printed = output(&["print-config", "--upstream", "http://app:9000"], &environment).await;
    let yaml = text(&printed.stdout);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    assert!(!yaml.contains("canary-4711"), "{yaml}");
    assert!(yaml.contains("upstream: \"http://app:9000\""), "{yaml}");
    let folder = tempfile::tempdir().unwrap();
    let without_secrets: String =
        yaml.lines().filter(|line| !line.contains("***")).map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.path().join("sidecar.yaml"), without_secrets).unwrap();
    let again = command(&folder).arg("print-config").output().await.unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(text(&again.stdout).contains("upstream: \"http://app:9000\""));
}

#[tokio::test]
async fn a_flag_wins_over_our_variable_that_over_others_and_those_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sidecar.yaml"), "telemetry: {endpoint: 'http://file:1'}\n").unwrap();
    let otel = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:1");
    let own = ("SIDECAR_TELEMETRY__ENDPOINT", "http://own:1");
    let table: [Row; 4] = [
        (&[], &[], "http://file:1"),
        (&[otel], &[], "http://otel:1"),
        (&[otel, own], &[], "http://own:1"),
        (&[otel, own], &["--otlp", "http://flag:1"], "http://flag:1"),
    ];
    for (environment, flags, expected) in table {
        let mut command = command(&folder);
        command.arg("print-config").args(flags).envs(environment.iter().copied());
        let printed = text(&command.output().await.unwrap().stdout);
        assert!(printed.contains(&format!("endpoint: \"{expected}\"")), "{expected} is missing in:\n{printed}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_port_and_setting() {
    let taken = echo_application().await.to_string();
    let table = [
        (["--listen", &taken, "--admin", "127.0.0.1:0"], "proxy.listen"),
        (["--listen", "127.0.0.1:0", "--admin", &taken], "admin.listen"),
    ];
    for (flags, setting) in table {
        let output = output(&[&["run", "--otlp", "http://127.0.0.1:1"][..], &flags[..]].concat(), &[]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(&taken)).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains("in use") && lines[0].contains(setting), "{said}");
    }
}

#[tokio::test]
async fn help_teaches_and_a_wrong_flag_exits_with_64() {
    let help = output(&["--help"], &[]).await;
    assert!(help.status.success());
    for expected in ["demo", "check-config", "print-config", "health", "openapi", "Examples:", "Exit codes:"] {
        assert!(text(&help.stdout).contains(expected), "{expected}");
    }
    let wrong = output(&["run", "--upsteam", "x"], &[]).await;
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("--upstream"), "{}", text(&wrong.stderr));
}

#[tokio::test]
async fn the_generated_documents_are_fresh() {
    for (page, path) in [("configuration", "docs/configuration.md"), ("metrics", "docs/metrics.md")] {
        let printed = text(&output(&["docs", page], &[]).await.stdout);
        let kept = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_default();
        assert!(printed == kept, "{path} is stale: run `make docs`");
    }
}

#[tokio::test]
async fn health_exits_by_the_answer() {
    let nobody = output(&["health", "http://127.0.0.1:1/health"], &[]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("does not answer"), "{}", text(&nobody.stderr));
    let application = echo_application().await;
    let sidecar = crate::rig::Sidecar::start(application, &[], &[]).await;
    let url = format!("http://{}/livez", sidecar.admin);
    let alive = tokio::time::timeout(PATIENCE, output(&["health", &url], &[])).await.unwrap();
    assert!(alive.status.success(), "{}", text(&alive.stderr));
}
