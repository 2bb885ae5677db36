//! The S3 API as a store: what it needs to be told, and the connections to it. TLS is the one that is in the
//! tree already; with the HTTP client that `object_store` would bring, 33 more packages and a second TLS came.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http_body_util::BodyExt;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::config::SharedStore;
use crate::state::StartError;

/// A bucket, or a part of one, behind the S3 API.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Config {
    /// The address of the API, for example `https://s3.eu-central-1.amazonaws.com`. Plain `http` is for tests.
    pub endpoint: String,
    /// The region; many stores take any word.
    pub region: String,
    /// The bucket, which exists.
    pub bucket: String,
    /// In front of the name of each object; may be empty.
    pub prefix: String,
    /// The name of the key.
    pub access_key_id: String,
    /// The key. It is shown nowhere.
    pub secret_access_key: String,
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl SharedStore {
    /// A bucket behind the S3 API. It must know conditional puts (`If-None-Match: *`).
    ///
    /// # Errors
    /// [`StartError::Io`] where what it is told makes no address. Nothing is asked of the store yet.
    pub fn s3(config: S3Config) -> Result<Self, StartError> {
        let S3Config { endpoint, region, bucket, prefix, access_key_id, secret_access_key } = config;
        let path = PathBuf::from(format!("{endpoint}/{bucket}/{prefix}"));
        let name = format!("s3://{bucket}/{prefix} at {endpoint}");
        let store = AmazonS3Builder::new()
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint)
            .with_region(region)
            .with_bucket_name(bucket)
            .with_access_key_id(access_key_id)
            .with_secret_access_key(secret_access_key)
            .with_http_connector(Connector)
            // The engine itself tries again, and knows what a lost answer means.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .map_err(|error| StartError::Io {
                action: "use the store of shared state",
                path,
                source: error.into(),
            })?;
        let objects: Arc<dyn ObjectStore> = match prefix.as_str() {
            "" => Arc::new(store),
            prefix => Arc::new(PrefixStore::new(store, Path::from(prefix))),
        };
        Ok(Self { objects, name: name.into() })
    }
}

#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let dialer = Dialer(TlsConnector::from(Arc::new(tls)));
        Ok(HttpClient::new(Http(Client::builder(TokioExecutor::new()).build(dialer))))
    }
}

#[derive(Debug)]
struct Http(Client<Dialer, HttpRequestBody>);

#[async_trait::async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.request(request).await.map_err(|error| {
            let is_connect = error.is_connect();
            HttpError::new(if is_connect { HttpErrorKind::Connect } else { HttpErrorKind::Request }, error)
        })?;
        let interrupted = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(interrupted))))
    }
}

/// Connects to the host of an address.
#[derive(Clone)]
struct Dialer(TlsConnector);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move { dial(&tls, &uri).await })
    }
}

async fn dial(tls: &TlsConnector, uri: &Uri) -> io::Result<Stream> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{what} in `{uri}`"));
    let host = uri.host().ok_or_else(|| invalid("there is no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    if !secure {
        return Ok(Stream::Plain(TokioIo::new(stream)));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| invalid("the host has no valid name"))?;
    Ok(Stream::Secure(Box::new(TokioIo::new(tls.connect(name, stream).await?))))
}

/// A connection.
enum Stream {
    Plain(TokioIo<TcpStream>),
    Secure(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
