//! The HTTP address: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever starts and stops processes,
//! `/status` for `weir status`; and the console, at `/`, for people. Who may look at the last two, `console::guard` says.
//!
//! Healthy means that the process can go on; ready, that it has begun to read. A destination that is away makes it
//! neither unhealthy nor unready: it waits, and `/status` says for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use tokio::net::TcpListener;

use crate::console::Console;
use crate::console::guard::{Access, guard};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::status::Status;

/// What the pages are made from.
pub struct Pages {
    /// The pipeline as it is now.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Whether reading has begun.
    pub is_ready: AtomicBool,
    /// Whether nothing has failed for good.
    pub is_healthy: AtomicBool,
}

/// Takes the address.
///
/// # Errors
/// When it is taken, or isn't an address.
pub async fn listen(address: &str) -> Result<TcpListener, Error> {
    let failed = |error: std::io::Error| Error::Http { address: address.to_owned(), detail: error.to_string() };
    TcpListener::bind(address).await.map_err(failed)
}

/// Serves the pages, and the console if there is one, until the task is dropped.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>, console: Option<Console>) {
    let own = || listener.local_addr().map_or(Access::Closed, |address| Access::of(&address.to_string(), None));
    let access = Arc::new(console.as_ref().map_or_else(own, Console::access));
    let guarded = Router::new()
        .route("/status", get(status))
        .layer(middleware::from_fn_with_state(access.clone(), guard))
        .with_state(pages.clone());
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(pages.clone())
        .merge(guarded);
    let Some(console) = console else { return listen_on(listener, router).await };
    let (of_console, snapshots) = console.serve(pages, access);
    tokio::join!(listen_on(listener, router.merge(of_console)), snapshots);
}

async fn listen_on(listener: TcpListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the http address is no longer served");
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    match pages.metrics.text(&(pages.status)()) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(pages): State<Arc<Pages>>) -> (StatusCode, &'static str) {
    answer(pages.is_healthy.load(Ordering::Acquire), "healthy", "stopping after a failure")
}

async fn readyz(State(pages): State<Arc<Pages>>) -> (StatusCode, &'static str) {
    answer(pages.is_ready.load(Ordering::Acquire), "ready", "starting")
}

async fn status(State(pages): State<Arc<Pages>>) -> Json<Status> {
    Json((pages.status)())
}

fn answer(is_so: bool, yes: &'static str, no: &'static str) -> (StatusCode, &'static str) {
    if is_so { (StatusCode::OK, yes) } else { (StatusCode::SERVICE_UNAVAILABLE, no) }
}
