//! The console: one page for analysts, data engineers and SDK teams, and what it asks.
//!
//! ```text
//! browser ── GET /, /console/* ─▶ guard ─▶ assets (compiled in)
//!         ── GET /api/views/... ─▶ guard ─▶ question (names from the catalog, values as parameters) ─▶ ask ─▶ ClickHouse
//!         ── GET /api/live ──────▶ guard ─▶ live: one snapshot a second for all, while anybody looks
//! ```
//! Invariants: a browser never sends SQL; ClickHouse is asked read-only and with limits; nothing is changed through the
//! console; whatever an event holds leaves as JSON or CSV, never as markup.
//!
//! Not here: how any of it looks (`dashboards/console`), and what alerts and replays are.

mod ask;
mod assets;
mod beside;
pub mod catalog;
mod fault;
pub mod guard;
mod health;
mod live;
mod numbers;
mod question;
pub mod replays;
mod routes;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;

use axum::routing::get;
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use weir_sinks::clickhouse::Client;

use crate::bind::Bound;
use crate::config::Pipeline;
use crate::http::Pages;
use ask::Desk;
use catalog::Catalog;
use guard::Access;
use live::Live;
use replays::Replays;

/// What a console is made from.
pub struct Console {
    catalog: Catalog,
    client: Client,
    access: Access,
    state: PathBuf,
    replays: Option<Replays>,
}

impl Console {
    /// The console of a pipeline; nothing where it has no address.
    pub fn of(pipeline: &Pipeline, bound: &Bound, client: &Client, replays: Option<Replays>) -> Option<Console> {
        let address = pipeline.http.as_deref()?;
        Some(Console {
            catalog: Catalog::of(pipeline, bound),
            client: client.clone(),
            access: Access::of(address, pipeline.http_token.as_deref()),
            state: pipeline.state.clone(),
            replays,
        })
    }

    /// Who may look at it.
    pub(crate) fn access(&self) -> Access {
        self.access.clone()
    }

    /// Its routes, and the task that makes snapshots, which the caller runs.
    pub(crate) fn serve(
        self,
        pages: Arc<Pages>,
        access: Arc<Access>,
    ) -> (Router, impl Future<Output = ()> + Send + 'static) {
        if *access == Access::Closed {
            tracing::warn!("the console isn't served beyond this machine without `http_token`");
        }
        let served = Served {
            desk: Desk::of(&self.client),
            client: self.client,
            catalog: Arc::new(self.catalog),
            live: Arc::new(Live::new()),
            state: self.state,
            replays: self.replays,
            comparing: Arc::new(Semaphore::new(1)),
            pages,
        };
        let router = Router::new()
            .route("/", get(assets::index))
            .route("/console/{*path}", get(assets::file))
            .route("/api/views", get(routes::views))
            .route("/api/views/{name}/series", get(routes::series))
            .route("/api/views/{name}/top", get(routes::top))
            .route("/api/views/{name}/rows", get(routes::rows))
            .route("/api/views/{name}/values", get(routes::values))
            .route("/api/views/{name}/extent", get(routes::extent))
            .route("/api/status", get(routes::status))
            .route("/api/progress", get(routes::progress))
            .route("/api/ledger", get(routes::ledger))
            .route("/api/quarantine", get(routes::quarantine))
            .route("/api/alerts", get(routes::alerts))
            .route("/api/alerts/{fingerprint}", get(routes::alert))
            .route("/api/alerts/{fingerprint}/releases", get(routes::of_alert))
            .route("/api/releases", get(routes::releases))
            .route("/api/releases/one", get(routes::one_release))
            .route("/api/releases/shares", get(routes::shares))
            .route("/api/releases/reasons", get(routes::reasons))
            .route("/api/replays", get(routes::replays))
            .route("/api/replays/{run}/diff", get(routes::diff))
            .route("/api/snapshot", get(live::snapshot))
            .route("/api/live", get(live::events))
            .layer(middleware::from_fn_with_state(access, guard::guard))
            .with_state(served.clone());
        (router, Live::keep(served))
    }
}

/// What the routes share.
#[derive(Clone)]
struct Served {
    catalog: Arc<Catalog>,
    client: Client,
    desk: Desk,
    live: Arc<Live>,
    state: PathBuf,
    replays: Option<Replays>,
    comparing: Arc<Semaphore>,
    pages: Arc<Pages>,
}
