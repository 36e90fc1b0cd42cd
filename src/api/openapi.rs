//! `/openapi.json`: the admin port described from the table of its routes.

use serde_json::{Map, Value, json};

use crate::api::reply::JSON;
use crate::api::routes::{Access, Endpoint, ROUTES, Route, Verb};
use crate::api::{checks, database, export, queues, tasks};

/// The description of the admin port, OpenAPI 3.1, as JSON.
#[must_use]
pub fn openapi() -> String {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.verb.label().to_ascii_lowercase()] = operation(route);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "content-factory sidecar, admin port",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything is answered from memory: no GET causes work in the application or behind it.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "security": [{}, { "token": [] }, { "browser": [] }],
        "paths": paths,
        "components": { "securitySchemes": security_schemes(), "schemas": {
            "Database": database::schema(),
            "Error": error_schema(),
            "Export": export::schema(),
            "Check": checks::schema(),
            "Queues": queues::schema(),
            "Tasks": tasks::schema(),
            "BeginTask": tasks::begin_schema(),
            "EndTask": tasks::end_schema(),
        } },
    });
    serde_json::to_string_pretty(&document).expect("a document of strings and numbers serialises")
}

fn security_schemes() -> Value {
    json!({
        "token": { "type": "http", "scheme": "bearer" },
        "browser": { "type": "http", "scheme": "basic", "description": "The token as the password, whatever the name. Only reads." },
    })
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
    if let Some((_, item)) = route.path.split_once('{') {
        let name = item.split('}').next().unwrap_or_default();
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    }
    let (id, summary) = (operation_id(route), route.summary);
    let mut operation =
        json!({ "operationId": id, "summary": summary, "parameters": parameters, "responses": responses });
    if matches!(route.access, Access::Write | Access::Told) {
        operation["security"] = json!([{}, { "token": [] }]);
    }
    let body = match route.endpoint {
        Endpoint::BeginTask => "BeginTask",
        Endpoint::EndTask => "EndTask",
        _ => return operation,
    };
    let content = json!({ JSON: { "schema": { "$ref": format!("#/components/schemas/{body}") } } });
    operation["requestBody"] = json!({ "required": true, "content": content });
    operation
}

/// Of what is read, the path alone.
fn operation_id(route: &Route) -> String {
    let verb = route.verb.label().to_ascii_lowercase();
    let verb = Some(verb.as_str()).filter(|_| route.verb != Verb::Get);
    let parts = route.path.split(['/', '.', '{', '}']).filter(|part| !part.is_empty());
    let id = verb.into_iter().chain(parts).collect::<Vec<_>>().join("_");
    if id.is_empty() { "root".to_owned() } else { id }
}

fn response(meaning: &str, status: u16, route: &Route) -> Value {
    if (400..500).contains(&status) || (status >= 400 && matches!(route.access, Access::Write | Access::Told)) {
        return error_response(meaning);
    }
    let content: Map<String, Value> = route
        .media
        .iter()
        .map(|media| {
            let schema = match (route.endpoint, *media) {
                (Endpoint::Database, _) => json!({ "$ref": "#/components/schemas/Database" }),
                (Endpoint::Check | Endpoint::RunCheck, _) => json!({ "$ref": "#/components/schemas/Check" }),
                (Endpoint::Export, _) => json!({ "$ref": "#/components/schemas/Export" }),
                (Endpoint::Tasks, _) => json!({ "$ref": "#/components/schemas/Tasks" }),
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

const UNKNOWN: &str = "a token that nobody gave out";

fn common_answers(access: Access) -> &'static [(u16, &'static str)] {
    match access {
        Access::Probe => &[],
        Access::Word => {
            &[(401, UNKNOWN), (403, "a foreign Host on loopback"), (429, "too many requests; see Retry-After")]
        }
        Access::Write | Access::Told => &[
            (401, "neither from loopback nor with a token, or a token that nobody gave out"),
            (403, "a token that only reads, as each does by Basic, a foreign Host, or a foreign Origin"),
            (429, "too many requests; see Retry-After"),
        ],
        Access::Full => &[
            (401, "not allowed from this address without a token, or a token that nobody gave out"),
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
        let operations: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(operations, ROUTES.len());
        for route in ROUTES {
            let operation = &paths[route.path][route.verb.label().to_ascii_lowercase()];
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
        let operations = paths.values().flat_map(|path| path.as_object().unwrap().values());
        let mut ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
