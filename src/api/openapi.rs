//! `/openapi.json`: the admin port described from the table of its routes.

use serde_json::{Map, Value, json};

use crate::api::export;
use crate::api::queues;
use crate::api::reply::JSON;
use crate::api::routes::{Access, Endpoint, ROUTES, Route};

/// The description of the admin port, OpenAPI 3.1, as JSON.
#[must_use]
pub fn openapi() -> String {
    let paths: Map<String, Value> =
        ROUTES.iter().map(|route| (route.path.to_owned(), json!({ "get": operation(route) }))).collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "content-factory sidecar, admin port",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything is answered from memory: no request causes work in the application or behind it.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "paths": paths,
        "components": { "schemas": { "Error": error_schema(), "Export": export::schema(), "Queues": queues::schema() } },
    });
    serde_json::to_string_pretty(&document).expect("a document of strings and numbers serialises")
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    for (status, meaning) in route.answers {
        responses.insert(status.to_string(), response(meaning, *status, route));
    }
    for (status, meaning) in common_answers(route.access) {
        responses.insert(status.to_string(), error_response(meaning));
    }
    let mut parameters: Vec<Value> = route
        .query
        .iter()
        .map(|(name, about)| {
            json!({ "name": name, "in": "query", "required": false, "description": about, "schema": { "type": "string" } })
        })
        .collect();
    if route.path.contains("{item}") {
        parameters.push(json!({ "name": "item", "in": "path", "required": true, "schema": { "type": "string" } }));
    }
    let operation_id: String =
        route.path.split(['/', '.', '{', '}']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    let operation_id = if operation_id.is_empty() { "root".to_owned() } else { operation_id };
    json!({ "operationId": operation_id, "summary": route.summary, "parameters": parameters, "responses": responses })
}

fn response(meaning: &str, status: u16, route: &Route) -> Value {
    if status == 404 {
        return error_response(meaning);
    }
    let content: Map<String, Value> = route
        .media
        .iter()
        .map(|media| {
            let schema = match (route.endpoint, *media) {
                (Endpoint::Export, _) => json!({ "$ref": "#/components/schemas/Export" }),
                (Endpoint::Queues, _) => json!({ "$ref": "#/components/schemas/Queues" }),
                (_, JSON) => json!({ "type": "object" }),
                _ => json!({ "type": "string" }),
            };
            ((*media).to_owned(), json!({ "schema": schema }))
        })
        .collect();
    json!({ "description": meaning, "content": content })
}

fn error_response(meaning: &str) -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
    json!({ "description": meaning, "content": content })
}

fn common_answers(access: Access) -> &'static [(u16, &'static str)] {
    match access {
        Access::Probe => &[],
        Access::Word => &[(403, "a foreign Host on loopback"), (429, "too many requests; see Retry-After")],
        Access::Full => &[
            (401, "not allowed from this address"),
            (403, "a foreign Host on loopback"),
            (429, "too many requests; see Retry-After"),
        ],
    }
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error", "expected"],
        "properties": { "error": { "type": "string" }, "expected": { "type": "string" } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_once() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), ROUTES.len());
        for route in ROUTES {
            let operation = &paths[route.path]["get"];
            assert_eq!(operation["summary"], route.summary);
            for (status, _) in route.answers {
                assert!(operation["responses"][status.to_string()].is_object(), "{} {status}", route.path);
            }
        }
    }

    #[test]
    fn operation_ids_differ() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut ids: Vec<&str> = paths.values().map(|path| path["get"]["operationId"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
