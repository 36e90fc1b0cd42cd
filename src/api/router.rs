//! The router: each row of the table leads to its answer, and the guard stands before all of them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodFilter, on};

use crate::api::access::Reach;
use crate::api::answers::{Asked, answer};
use crate::api::config::Readiness;
use crate::api::guard::{Guard, guard};
use crate::api::reply::error;
use crate::api::routes::{ROUTES, Verb, at};
use crate::api::state::State;

/// The router of all rows, behind the guard.
pub(super) fn router(state: Arc<State>, door: Guard) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let endpoint = route.endpoint;
        let answer = move |Shared(state): Shared<Arc<State>>, request: Request| async move {
            let told = request.extensions();
            let readiness = told.get().copied().unwrap_or(Readiness::Own);
            let asked = Asked { reach: told.get().copied().unwrap_or(Reach::Bare), readiness, request };
            answer(endpoint, &state, asked).await
        };
        router = router.route(route.path, on(filter(route.verb), answer));
    }
    router
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path", "one of the paths in /openapi.json"))
        .method_not_allowed_fallback(async |request: Request| not_allowed(request.uri().path()))
        .layer(from_fn_with_state(Arc::new(door), guard))
        .with_state(state)
}

/// 405, with the methods that the path knows.
fn not_allowed(path: &str) -> Response {
    let methods = at(path).map(|route| if route.verb == Verb::Get { "GET or HEAD" } else { route.verb.label() });
    error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", &methods.collect::<Vec<_>>().join(" or "))
}

/// GET answers HEAD as well.
fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Post => MethodFilter::POST,
        Verb::Patch => MethodFilter::PATCH,
    }
}
