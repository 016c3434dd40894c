//! The HTTP API: paths, bodies, answers. What they do is `super::lifecycle`'s and the fleet's to say.
//!
//! The document at `/openapi.json` is made of the same lines that make the routes.

pub mod body;
pub mod problem;

use super::core::Core;
use super::lifecycle::Asked;
use super::metrics;
use super::order::Call;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use body::{Answer, Destroyed, Health, Pausing, Problem, Resumed, SandboxList, SandboxView, Scaled, Started};
use problem::Refusal;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// A longer body is none of ours.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long one may take to arrive.
const BODY_SECONDS_MAX: u64 = 10;
/// Sandboxes of one page.
const PAGE_MAX: usize = 1000;

/// What a handler works with.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) core: Arc<Core>,
    pub(super) registry: Arc<Registry>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "guestmeter worker",
        description = "Lifecycle calls of a VM manager, and what the worker knows of its sandboxes. Every call is \
            answered after its commit; repeated with the same event_id it gets its first answer. 503 means that the \
            call is not in the books: make it again."
    ),
    tags((name = "lifecycle"), (name = "questions"))
)]
struct Document;

/// Every route, and the document of them.
pub(super) fn router(service: Service) -> (Router, utoipa::openapi::OpenApi) {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(started))
        .routes(routes!(scaled))
        .routes(routes!(pausing))
        .routes(routes!(resumed))
        .routes(routes!(destroyed))
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(health))
        .routes(routes!(show_metrics))
        .routes(routes!(openapi))
        .split_for_parts();
    let router = router
        .fallback(|| async { Refusal::Path })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .with_state(service);
    (router, document)
}

/// It boots: a new life begins. The answer has its epoch; the guest is named once it answers.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/started", tag = "lifecycle", request_body = Started,
    params(("sandbox" = String, Path, description = "The sandbox's name")),
    responses(
        (status = 200, description = "Committed", body = Answer),
        (status = 400, description = "The body is wrong", body = Problem),
        (status = 404, description = "No such sandbox", body = Problem),
        (status = 409, description = "Out of order, or the event_id is another call's", body = Problem),
        (status = 422, description = "What it says contradicts the books", body = Problem),
        (status = 503, description = "Not in the books: call again", body = Problem),
    )
)]
async fn started(
    State(service): State<Service>,
    Path(sandbox): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let Started { event_id, at, epoch, memory_mib, cpu_millis, deadline_ms } =
        read(&service, Call::Started, body).await?;
    let asked = Asked {
        memory_mib: Some(memory_mib),
        cpu_millis,
        deadline: deadline(deadline_ms),
        ..Asked::new(Call::Started, event_id, at.0, epoch)
    };
    answer(&service, sandbox, asked).await
}

/// The VMM was asked for another size.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/scaled", tag = "lifecycle", request_body = Scaled,
    params(("sandbox" = String, Path, description = "The sandbox's name")),
    responses(
        (status = 200, description = "Committed", body = Answer),
        (status = 400, description = "The body is wrong", body = Problem),
        (status = 404, description = "No such sandbox", body = Problem),
        (status = 409, description = "Out of order, or the event_id is another call's", body = Problem),
        (status = 422, description = "What it says contradicts the books", body = Problem),
        (status = 503, description = "Not in the books: call again", body = Problem),
    )
)]
async fn scaled(
    State(service): State<Service>,
    Path(sandbox): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let Scaled { event_id, at, epoch, memory_mib, cpu_millis } = read(&service, Call::Scaled, body).await?;
    let asked = Asked {
        memory_mib: Some(memory_mib),
        cpu_millis,
        ..Asked::new(Call::Scaled, event_id, at.0, Some(epoch))
    };
    answer(&service, sandbox, asked).await
}

/// It is about to be paused: the guest closes its count. After `confirmed` the VM may be paused and saved;
/// `unconfirmed` comes at the deadline, for a snapshot is not held up.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/pausing", tag = "lifecycle", request_body = Pausing,
    params(("sandbox" = String, Path, description = "The sandbox's name")),
    responses(
        (status = 200, description = "Committed", body = Answer),
        (status = 400, description = "The body is wrong", body = Problem),
        (status = 404, description = "No such sandbox", body = Problem),
        (status = 409, description = "Out of order, or the event_id is another call's", body = Problem),
        (status = 422, description = "What it says contradicts the books", body = Problem),
        (status = 503, description = "Not in the books: call again", body = Problem),
    )
)]
async fn pausing(
    State(service): State<Service>,
    Path(sandbox): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let Pausing { event_id, at, epoch, deadline_ms } = read(&service, Call::Pausing, body).await?;
    let asked =
        Asked { deadline: deadline(deadline_ms), ..Asked::new(Call::Pausing, event_id, at.0, Some(epoch)) };
    answer(&service, sandbox, asked).await
}

/// It runs again: an epoch is minted, committed, and said to the guest. The answer has the guest's first report in it.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/resumed", tag = "lifecycle", request_body = Resumed,
    params(("sandbox" = String, Path, description = "The sandbox's name")),
    responses(
        (status = 200, description = "Committed", body = Answer),
        (status = 400, description = "The body is wrong", body = Problem),
        (status = 404, description = "No such sandbox", body = Problem),
        (status = 409, description = "Out of order, or the event_id is another call's", body = Problem),
        (status = 422, description = "What it says contradicts the books", body = Problem),
        (status = 503, description = "Not in the books: call again", body = Problem),
    )
)]
async fn resumed(
    State(service): State<Service>,
    Path(sandbox): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let Resumed { event_id, at, epoch, paused, memory_mib, cpu_millis, deadline_ms } =
        read(&service, Call::Resumed, body).await?;
    let asked = Asked {
        memory_mib,
        cpu_millis,
        paused,
        deadline: deadline(deadline_ms),
        ..Asked::new(Call::Resumed, event_id, at.0, epoch)
    };
    answer(&service, sandbox, asked).await
}

/// It is gone.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandbox}/destroyed", tag = "lifecycle", request_body = Destroyed,
    params(("sandbox" = String, Path, description = "The sandbox's name")),
    responses(
        (status = 200, description = "Committed", body = Answer),
        (status = 400, description = "The body is wrong", body = Problem),
        (status = 404, description = "No such sandbox", body = Problem),
        (status = 409, description = "Out of order, or the event_id is another call's", body = Problem),
        (status = 422, description = "What it says contradicts the books", body = Problem),
        (status = 503, description = "Not in the books: call again", body = Problem),
    )
)]
async fn destroyed(
    State(service): State<Service>,
    Path(sandbox): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let Destroyed { event_id, at, epoch } = read(&service, Call::Destroyed, body).await?;
    answer(&service, sandbox, Asked::new(Call::Destroyed, event_id, at.0, Some(epoch))).await
}

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Those after this name.
    after: Option<String>,
    /// So many, at most 1000.
    limit: Option<usize>,
}

/// The sandboxes of this worker.
#[utoipa::path(
    get, path = "/v1/sandboxes", tag = "questions", params(Page),
    responses(
        (status = 200, description = "A page of them", body = SandboxList),
        (status = 400, description = "The query is wrong", body = Problem),
    )
)]
async fn list(
    State(service): State<Service>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<SandboxList>, Refusal> {
    let Query(page) = page.map_err(|error| Refusal::Body(error.body_text()))?;
    let limit = page.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    let found = service.core.fleet.page(page.after.as_deref(), limit);
    let next = found.get(limit - 1).map(|last| last.name.clone());
    let sandboxes = found.iter().map(|sandbox| sandbox.view()).collect();
    Ok(Json(SandboxList { sandboxes, next }))
}

/// One of them.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandbox}", tag = "questions",
    params(("sandbox" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "What is known of it", body = SandboxView),
        (status = 404, description = "No such sandbox", body = Problem),
    )
)]
async fn show(
    State(service): State<Service>,
    Path(sandbox): Path<String>,
) -> Result<Json<SandboxView>, Refusal> {
    let Some(found) = service.core.fleet.get(&sandbox) else { return Err(Refusal::Unknown(sandbox)) };
    service.core.read(&found).await;
    Ok(Json(found.view()))
}

/// Whether the worker does its work.
#[utoipa::path(
    get, path = "/healthz", tag = "questions",
    responses(
        (status = 200, description = "It does", body = Health),
        (status = 503, description = "It does not, and why", body = Health),
    )
)]
async fn health(State(service): State<Service>) -> (StatusCode, Json<Health>) {
    let faults: Vec<String> =
        service.core.desk.fault().map(|why| format!("ledger: {why}")).into_iter().collect();
    let healthy = faults.is_empty();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { healthy, faults }))
}

/// Prometheus' metrics.
#[utoipa::path(
    get, path = "/metrics", tag = "questions",
    responses((status = 200, description = "As OpenMetrics", body = String, content_type = "text/plain"))
)]
async fn show_metrics(State(service): State<Service>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics::text(&service.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "questions",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
async fn openapi(State(service): State<Service>) -> Json<utoipa::openapi::OpenApi> {
    let (_, document) = router(service);
    Json(document)
}

/// The body, bounded in size and in time; what does not belong in it is named.
async fn read<T: DeserializeOwned>(service: &Service, call: Call, body: Body) -> Result<T, Refusal> {
    let read = async {
        let limit = Duration::from_secs(BODY_SECONDS_MAX);
        let bytes = match tokio::time::timeout(limit, to_bytes(body, BODY_BYTES_MAX)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => return Err(Refusal::Long(BODY_BYTES_MAX)),
            Err(_) => return Err(Refusal::Slow(BODY_SECONDS_MAX)),
        };
        serde_json::from_slice(&bytes).map_err(|error| Refusal::Body(error.to_string()))
    };
    let read = read.await;
    if let Err(refusal) = &read {
        service.core.metrics.call(call, refusal.name());
    }
    read
}

/// A call outlives its caller: whoever hangs up finds the answer by the same event_id.
async fn answer(service: &Service, sandbox: String, asked: Asked) -> Result<Response, Refusal> {
    let core = Arc::clone(&service.core);
    let carrying = service.core.tasks.spawn(async move { core.call(&sandbox, asked).await });
    let text = carrying.await.map_err(|_| Refusal::Stopping)??;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn deadline(milliseconds: Option<u64>) -> Option<Duration> {
    milliseconds.map(Duration::from_millis)
}
