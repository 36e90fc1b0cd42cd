//! The table of operations, from which both the router and `/openapi.json` are made: neither can forget one.

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::demo::factory::handlers;
use crate::demo::factory::store::Store;

struct Operation {
    path: &'static str,
    method: &'static str,
    summary: &'static str,
    handler: MethodRouter<Store>,
}

/// Every operation over this store, the description of them included.
pub(super) fn router(store: Store) -> Router {
    let description = describe(&operations());
    let described = get(async move || handlers::answer(StatusCode::OK, &description));
    operations()
        .into_iter()
        .fold(Router::new(), |router, operation| router.route(operation.path, operation.handler))
        .route("/openapi.json", described)
        .with_state(store)
}

fn operations() -> Vec<Operation> {
    let read = |path, summary, handler| Operation { path, method: "get", summary, handler };
    let write = |path, summary, handler| Operation { path, method: "post", summary, handler };
    vec![
        read("/", "What this is", get(handlers::root)),
        read("/health", "Whether this process answers", get(handlers::health)),
        read("/status", "Version and row counts", get(handlers::status)),
        read("/api/v1/products", "The newest products", get(handlers::list_products)),
        write("/api/v1/products", "Keeps a product", post(handlers::create_product)),
        read("/api/v1/products/{product_id}", "One product", get(handlers::read_product)),
        write("/api/v1/products/{product_id}/scripts", "Has a script written", post(handlers::write_script)),
        write("/api/v1/videos", "Orders a rendering", post(handlers::order_video)),
        read("/api/v1/videos/{video_id}", "One video", get(handlers::read_video)),
        read("/api/v1/videos/{video_id}/progress", "Progress as events", get(handlers::watch_progress)),
        write("/api/v1/social-media/publish-video/{video_id}", "Publishes now", post(handlers::publish_video)),
        read("/api/v1/reports/slow", "A report that takes its time", get(handlers::slow_report)),
    ]
}

/// Paths, methods and parameters; enough for route templates and for a person who looks around.
fn describe(operations: &[Operation]) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let parameters: Vec<Value> = parameters(operation.path)
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "integer"}}))
            .collect();
        let described = json!({
            "summary": operation.summary,
            "parameters": parameters,
            "responses": {"default": {"description": "JSON, or events"}},
        });
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Content factory", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}

/// The names between braces.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_every_path_with_its_methods_and_parameters() {
        let described = describe(&operations());
        let methods: usize =
            described["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(methods, operations().len());
        assert_eq!(described["paths"].as_object().unwrap().len(), 11);
        let publish = &described["paths"]["/api/v1/social-media/publish-video/{video_id}"]["post"];
        assert_eq!(publish["parameters"][0]["name"], "video_id");
    }
}
