//! Slow statements from a real `pg_stat_statements`, and what of them comes out.

use content_factory_sidecar::model::database::statements::StatementSource;
use serde_json::Value;

use crate::database_room::Room;
use crate::database_servers::Postgres;
use crate::rig::{Sidecar, echo_application};

const LOADED: &str = "shared_preload_libraries=pg_stat_statements";
const PATH: &str = "/api/v1/monitoring/database";
/// Stands in literals and comments of statements; must come out nowhere.
const CANARY: &str = "canary-canary";

#[tokio::test]
async fn a_missing_extension_and_one_that_is_not_loaded_are_told_apart() {
    let postgres = Postgres::start(&[]).await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let is = |wanted: StatementSource| {
        move |state: &content_factory_sidecar::model::database::DatabaseState| {
            state.statements.current().filter(|found| found.source == wanted).cloned()
        }
    };
    assert_eq!(room.until("its absence", is(StatementSource::Absent)).await.top, []);
    postgres.run("CREATE EXTENSION pg_stat_statements").await;
    room.until("a library that is not loaded", is(StatementSource::NotLoaded)).await;
}

#[tokio::test]
async fn an_extension_in_a_schema_that_is_not_ours_is_told_and_not_asked() {
    let postgres = Postgres::start(&[LOADED]).await;
    postgres.run("CREATE SCHEMA hidden; CREATE EXTENSION pg_stat_statements SCHEMA hidden").await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    let read = room.until("a refusal", |state| state.statements.current().cloned()).await;
    assert_eq!((read.source, read.top.len()), (StatementSource::Refused, 0));
    assert!(!postgres.log().contains("ERROR"), "{}", postgres.log());
}

#[tokio::test]
async fn what_took_most_time_is_told_by_the_difference_of_two_readings() {
    let postgres = Postgres::start(&[LOADED]).await;
    postgres.run("CREATE SCHEMA \"Odd one\"; CREATE EXTENSION pg_stat_statements SCHEMA \"Odd one\"").await;
    postgres.run("GRANT USAGE ON SCHEMA \"Odd one\" TO cf_sidecar").await;
    postgres.run("SELECT pg_sleep(0.4), 'before'").await;
    let mut room = Room::start(&postgres.url("cf_sidecar"));
    room.until("two readings", |state| state.statements.current()?.seconds).await;
    postgres.run("SELECT count(*), pg_sleep(0.2) FROM products WHERE name = 'after'").await;
    let slow = room.until("the slow statement", |state| {
        let read = state.statements.current()?;
        assert!(read.top.len() <= 10, "{read:?}");
        read.top
            .iter()
            .find(|statement| statement.text.as_ref().is_some_and(|text| text.as_str().contains("FROM products")))
            .cloned()
    });
    let slow = slow.await;
    assert_eq!(slow.text.expect("a text").as_str(), "SELECT count(*), pg_sleep($1) FROM products WHERE name = $2");
    assert_eq!((slow.calls, slow.role.as_str(), slow.is_top_level), (1, "factory", true));
    assert!((0.2..30.0).contains(&slow.total_seconds), "{}", slow.total_seconds);
    let earlier = room.reader.borrow().statements.last().cloned().expect("a reading");
    assert!(earlier.top.iter().all(|statement| statement.total_seconds < 30.0), "{earlier:?}");
    let is_ours =
        |text: &str| text.contains("pg_stat_") || text.contains("statement_timeout") || text.starts_with("BEGIN");
    let ours =
        earlier.top.iter().filter(|statement| statement.text.as_ref().is_some_and(|text| is_ours(text.as_str())));
    assert_eq!(ours.count(), 0, "our own questions are among the application's: {earlier:?}");
}

#[tokio::test]
async fn a_secret_in_a_statement_comes_out_of_nowhere() {
    let postgres = Postgres::start(&[LOADED]).await;
    postgres.run("CREATE EXTENSION pg_stat_statements").await;
    let (url, application) = (postgres.url("cf_sidecar"), echo_application().await);
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("SIDECAR_DATABASE__STATISTICS_PERIOD", "1s"),
        ("SIDECAR_DATABASE__ACTIVITY_PERIOD", "1s"),
        ("SIDECAR_LOG__LEVEL", "debug"),
    ];
    let sidecar = Sidecar::start(application, &[], &environment).await;
    let read = |body: &str| serde_json::from_str::<Value>(body).expect("JSON");
    sidecar.eventually(PATH, |_, body| read(body)["statements"]["value"]["seconds"].is_number()).await;
    // no query, so the server leaves its literals where they are; often, so that it is among the slowest
    let change = format!("ALTER ROLE visitor /* {CANARY} */ PASSWORD '{CANARY}'; ").repeat(50);
    postgres
        .run(&format!("CREATE ROLE visitor; {change} SELECT pg_sleep(0.1), '{CANARY}' AS secret -- {CANARY}"))
        .await;
    let shows = |_, body: &str| body.contains("ALTER ROLE visitor PASSWORD ?");
    let body = sidecar.eventually(PATH, shows).await;
    assert_eq!(read(&body)["server"]["value"]["visibility"], "full");
    let document = read(&sidecar.ask("/openapi.json").await.1);
    for path in document["paths"].as_object().expect("paths").keys() {
        let (_, body) = sidecar.ask(&path.replace("{item}", "listener")).await;
        assert!(!body.contains(CANARY), "{path}: {body}");
        assert!(path == PATH || !body.contains("ALTER ROLE"), "texts are of one endpoint only: {path}: {body}");
    }
    assert!(!sidecar.log().contains(CANARY), "{}", sidecar.log());
    assert!(sidecar.metrics().await.contains("postgresql_commits_total{db_namespace=\"postgres\"}"));
}
