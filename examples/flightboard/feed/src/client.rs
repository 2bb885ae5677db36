//! The HTTP client: a pool of connections to the ingress.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    base: String,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: http::StatusCode,
    pub(crate) body: Bytes,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8080`.
    pub(crate) fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Self { http, base: base.trim_end_matches('/').to_owned() }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// Where no whole answer came: whether the command was applied is then unknown.
    pub(crate) async fn post(&self, path: &str, key: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
        let request = http::Request::post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(Full::from(body))?;
        self.call(request).await
    }

    /// Sends a query.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(http::Request::get(format!("{}{path}", self.base)).body(Full::default())?).await
    }

    async fn call(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let answer = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok(Answer { status, body })
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer).await.context("no answer in time")?
    }
}
