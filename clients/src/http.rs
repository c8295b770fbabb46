//! One HTTP request, for the admin listener of a node: HTTP/1.0, one request per connection.
//! Invariant: no more than the caller's limit is kept, and no more time than the caller's limit is taken.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::connection::open;
use crate::error::ConnectionError;

/// What answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status: 200 for success.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// No answer, or none that can be read.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No connection could be opened.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The connection failed.
    #[error("{address}: {source}")]
    Io {
        /// Host and port.
        address: String,
        /// What the system reports.
        source: io::Error,
    },
    /// No whole answer in time.
    #[error("{address} did not answer within {timeout:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// The limit.
        timeout: Duration,
    },
    /// The answer is longer than the limit in bytes.
    #[error("{address} answers with more than {limit} bytes")]
    TooLarge {
        /// Host and port.
        address: String,
        /// The limit.
        limit: usize,
    },
    /// What came is not an HTTP answer.
    #[error("{address} does not speak HTTP")]
    NotHttp {
        /// Host and port.
        address: String,
    },
    /// The path holds a character that may not stand in a request line.
    #[error("not a path: {0:?}")]
    Path(String),
}

impl HttpError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Io { .. } | Self::Timeout { .. })
    }
}

/// Gets `path` from `address` (`HOST:PORT`): at most `limit` bytes with the head, within `within`.
///
/// # Errors
/// [`HttpError`]. An answer with another status than 200 is none.
pub async fn get(address: &str, path: &str, limit: usize, within: Duration) -> Result<HttpResponse, HttpError> {
    ask(address, "GET", path, "", limit, within).await
}

/// Posts `json` to `path` at `address` (`HOST:PORT`); the answer may have `limit` bytes with the head, and has to come within `within`.
///
/// # Errors
/// [`HttpError`]. An answer with another status than 200 is none.
pub async fn post(
    address: &str,
    path: &str,
    json: &str,
    limit: usize,
    within: Duration,
) -> Result<HttpResponse, HttpError> {
    ask(address, "POST", path, json, limit, within).await
}

async fn ask(
    address: &str,
    method: &str,
    path: &str,
    json: &str,
    limit: usize,
    within: Duration,
) -> Result<HttpResponse, HttpError> {
    if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(HttpError::Path(path.to_owned()));
    }
    let work = async {
        let failed = |source| HttpError::Io { address: address.to_owned(), source };
        let mut socket = open(address, within).await?;
        let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n");
        if !json.is_empty() {
            request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", json.len()));
        }
        request.push_str("\r\n");
        request.push_str(json);
        socket.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut answer = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        socket.take(most).read_to_end(&mut answer).await.map_err(failed)?;
        if answer.len() > limit {
            return Err(HttpError::TooLarge { address: address.to_owned(), limit });
        }
        parse(&answer).ok_or_else(|| HttpError::NotHttp { address: address.to_owned() })
    };
    let late = HttpError::Timeout { address: address.to_owned(), timeout: within };
    timeout(within, work).await.unwrap_or(Err(late))
}

fn parse(answer: &[u8]) -> Option<HttpResponse> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    first.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = first.next()?.parse().ok()?;
    let body = answer.get(end + 4..)?;
    let header = |name: &str| {
        head.split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then(|| value.trim()))
    };
    if header("transfer-encoding").is_some() {
        // Not to be sent to a client of version 1.0.
        return None;
    }
    let body = match header("content-length") {
        Some(length) => body.get(..length.parse().ok()?)?,
        None => body,
    };
    Some(HttpResponse { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_a_length() {
        let whole = HttpResponse { status: 200, body: b"ok\n".to_vec() };
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\nmore"), Some(whole.clone()));
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\nok\n"), Some(whole));
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\n\r\n").map(|answer| answer.status), Some(404));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for answer in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert_eq!(parse(answer), None, "{answer:?}");
        }
    }
}
