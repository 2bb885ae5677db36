//! An HTTP client for tests: whole answers, and what went wrong where there is none.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;

const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// A client with an executor of its own; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Client {
    executor: std::sync::Arc<Runtime>,
    http: HyperClient<HttpConnector, Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as text.
    pub body: String,
}

impl Answer {
    /// The body, of an answer with status 200.
    ///
    /// # Panics
    /// At another status.
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }
}

impl Client {
    /// A client with no connection yet.
    ///
    /// # Panics
    /// Where the system gives no thread.
    #[must_use]
    pub fn new() -> Self {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("an executor");
        let http = HyperClient::builder(TokioExecutor::new()).build_http();
        Self { executor: std::sync::Arc::new(executor), http }
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// Where no whole answer comes.
    pub fn get(&self, url: &str) -> Result<Answer, String> {
        self.send(Method::GET, url, &[], "")
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// Where no whole answer comes.
    pub fn post(&self, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer, String> {
        self.send(Method::POST, url, headers, body)
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).map_err(|error| error.to_string())?;
        self.executor.block_on(async {
            let answer = async {
                let response = self.http.request(request).await.map_err(|error| format!("{error:?}"))?;
                let (head, body) = response.into_parts();
                let body = body.collect().await.map_err(|error| format!("cut off: {error}"))?.to_bytes();
                let body = String::from_utf8_lossy(&body).into_owned();
                Ok(Answer { status: head.status, headers: head.headers, body })
            };
            tokio::time::timeout(LONGEST_ANSWER, answer).await.map_err(|_| "no answer in time".to_owned())?
        })
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
