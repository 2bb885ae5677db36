//! `/metrics` beside the agent's API, on the same address, over HTTP/1.1 and HTTP/2.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode};
use hvm_runtime::Hvm;
use tonic::service::Routes;

use super::exposition;
use super::snapshot::Snapshot;
use crate::usage::UsageLedger;

/// OpenMetrics 1.0, section "Overall Structure".
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the metrics are read from.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) hvm: Hvm,
    pub(crate) usage: Arc<UsageLedger>,
}

/// Adds the metrics to an API's routes.
pub(crate) fn routes(api: Routes, metrics: Metrics) -> Routes {
    let router = api.into_axum_router().route("/metrics", get(answer).with_state(metrics));
    Routes::from(router)
}

async fn answer(State(metrics): State<Metrics>) -> (StatusCode, [(HeaderName, &'static str); 1], String) {
    metrics.usage.sample(&metrics.hvm).await;
    match exposition::text(Snapshot::take(&metrics.hvm, &metrics.usage)) {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPENMETRICS)], text),
        Err(std::fmt::Error) => {
            tracing::error!("the metrics could not be written down");
            let text = "the metrics could not be written down\n".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], text)
        }
    }
}
