//! What the factory answers: the routes of the real application, and its ways to fail.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::demo::factory::progress;
use crate::demo::factory::store::Store;

/// The AI service refuses every tenth product: errors at a rate that is known.
pub(super) const REFUSED_BY_AI_EVERY: i64 = 10;
/// A report takes this long unless it is asked otherwise.
const REPORT_SECONDS: f64 = 0.4;
/// A visitor cannot hold a connection for longer.
const LONGEST_REPORT_SECONDS: f64 = 5.0;

/// Why a request gets no good answer.
pub(super) enum Refusal {
    NotFound,
    /// The body or a parameter is wrong; says what was expected.
    Invalid(&'static str),
    AiService,
    Database,
}

impl From<sqlx::Error> for Refusal {
    /// In fixed words: the text of an error may hold a path or an address.
    fn from(_: sqlx::Error) -> Self {
        Self::Database
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not found"),
            Self::Invalid(expected) => (StatusCode::UNPROCESSABLE_ENTITY, expected),
            Self::AiService => (StatusCode::BAD_GATEWAY, "the AI service refused"),
            Self::Database => (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached"),
        };
        answer(status, &json!({"detail": detail}))
    }
}

type Answer = Result<Response, Refusal>;

/// How many of the newest.
#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<i64>,
}

/// How long a report takes.
#[derive(Deserialize)]
pub(super) struct Patience {
    seconds: Option<f64>,
}

#[derive(Deserialize)]
struct NewProduct {
    name: String,
}

#[derive(Deserialize)]
struct NewVideo {
    script_id: i64,
}

pub(super) async fn root() -> Response {
    answer(StatusCode::OK, &json!({"name": "content factory", "docs": "/openapi.json"}))
}

pub(super) async fn health() -> Response {
    answer(StatusCode::OK, &json!({"status": "healthy"}))
}

pub(super) async fn status(State(store): State<Store>) -> Answer {
    let body = json!({
        "health": {"status": "healthy"},
        "database_stats": store.counts().await?,
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(answer(StatusCode::OK, &body))
}

pub(super) async fn list_products(State(store): State<Store>, Query(page): Query<Page>) -> Answer {
    let limit = page.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(Refusal::Invalid("limit: expected 1 to 100"));
    }
    Ok(answer(StatusCode::OK, &store.products(limit).await?))
}

pub(super) async fn create_product(State(store): State<Store>, body: Bytes) -> Answer {
    let new: NewProduct =
        serde_json::from_slice(&body).map_err(|_| Refusal::Invalid("expected a body such as {\"name\":\"Lamp\"}"))?;
    if new.name.is_empty() || new.name.chars().count() > 200 {
        return Err(Refusal::Invalid("name: expected 1 to 200 characters"));
    }
    Ok(answer(StatusCode::CREATED, &store.add_product(&new.name).await?))
}

pub(super) async fn read_product(State(store): State<Store>, Path(id): Path<i64>) -> Answer {
    let product = store.product(id).await?.ok_or(Refusal::NotFound)?;
    Ok(answer(StatusCode::OK, &product))
}

pub(super) async fn write_script(State(store): State<Store>, Path(id): Path<i64>) -> Answer {
    let product = store.product(id).await?.ok_or(Refusal::NotFound)?;
    if id % REFUSED_BY_AI_EVERY == 0 {
        return Err(Refusal::AiService);
    }
    Ok(answer(StatusCode::CREATED, &store.add_script(&product).await?))
}

pub(super) async fn order_video(State(store): State<Store>, body: Bytes) -> Answer {
    let new: NewVideo =
        serde_json::from_slice(&body).map_err(|_| Refusal::Invalid("expected a body such as {\"script_id\":1}"))?;
    if !store.script_exists(new.script_id).await? {
        return Err(Refusal::NotFound);
    }
    Ok(answer(StatusCode::ACCEPTED, &store.add_video(new.script_id).await?))
}

pub(super) async fn read_video(State(store): State<Store>, Path(id): Path<i64>) -> Answer {
    let video = store.video(id).await?.ok_or(Refusal::NotFound)?;
    Ok(answer(StatusCode::OK, &video))
}

/// Always 200; what failed is inside.
pub(super) async fn publish_video(State(store): State<Store>, Path(id): Path<i64>) -> Answer {
    store.video(id).await?.ok_or(Refusal::NotFound)?;
    let results = store.publish(id).await?;
    Ok(answer(StatusCode::OK, &json!({"video_id": id, "results": results})))
}

pub(super) async fn watch_progress(Path(id): Path<i64>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, progress::of_video(id)).into_response()
}

pub(super) async fn slow_report(Query(patience): Query<Patience>) -> Answer {
    let seconds = patience.seconds.unwrap_or(REPORT_SECONDS);
    if !(0.0..=LONGEST_REPORT_SECONDS).contains(&seconds) {
        return Err(Refusal::Invalid("seconds: expected 0 to 5"));
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    Ok(answer(StatusCode::OK, &json!({"seconds": seconds})))
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    // rows and fixed words: nothing in them that JSON cannot say
    let body = serde_json::to_vec(value).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response()
}
