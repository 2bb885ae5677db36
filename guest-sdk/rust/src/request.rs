//! A request as the handler sees it: whole, with nothing left to read.

use crate::url::decode;

/// Headers by name, in order; values are bytes, as HTTP allows.
pub type Headers = Vec<(String, Vec<u8>)>;

/// One request. In a partition it is a query where the method is GET, HEAD or OPTIONS (it can't write), else a
/// command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// In capitals, as it stands in the request: `GET`.
    pub method: String,
    /// Without the query, still percent-encoded: `/airports/JFK`.
    pub path: String,
    /// What stands behind `?`, still percent-encoded; empty where there is none.
    pub query: String,
    /// In the order they came, names in lower case.
    pub headers: Headers,
    /// Empty where there is none.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name, whatever its case; `None` where it is absent or no UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value =
            self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)?;
        std::str::from_utf8(value).ok()
    }

    /// The path's parts between slashes, decoded: `/airports/JFK` has `["airports", "JFK"]`. Empty parts are left out.
    #[must_use]
    pub fn segments(&self) -> Vec<String> {
        self.path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false)).collect()
    }

    /// The first query parameter of this name, decoded.
    #[must_use]
    pub fn query_param(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (!pair.is_empty() && decode(key, true) == name).then(|| decode(value, true))
        })
    }

    /// The body as text; `None` where it is no UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// The body is no JSON, or not of this shape; as a response it is status 400 with the reason.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, crate::Response> {
        serde_json::from_slice(&self.body).map_err(|error| {
            crate::Response::error(400, &format!("the body is not the expected JSON: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn segments_and_parameters_are_decoded() {
        let request = Request {
            path: "/airports//New%20York/".to_owned(),
            query: "k=a%26b&flag&k=second&sp+ace=1".to_owned(),
            ..Request::default()
        };
        assert_eq!(request.segments(), ["airports", "New York"]);
        assert_eq!(request.query_param("k").as_deref(), Some("a&b"));
        assert_eq!(request.query_param("flag").as_deref(), Some(""));
        assert_eq!(request.query_param("sp ace").as_deref(), Some("1"));
        assert_eq!(request.query_param(""), None);
    }

    #[test]
    fn a_header_is_found_in_any_case() {
        let request =
            Request { headers: vec![("idempotency-key".into(), b"a".to_vec())], ..Request::default() };
        assert_eq!(request.header("Idempotency-Key"), Some("a"));
        assert_eq!(request.header("content-type"), None);
    }
}
