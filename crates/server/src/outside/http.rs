//! Requests to others over HTTP/1.1: bounded in size and time, on connections that are kept.

use super::one_line;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, LOCATION};
use http::uri::{Scheme, Uri};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;

/// Idle connections to one address.
const IDLE_MAX: usize = 8;
/// Bytes of an address.
const URL_BYTES_MAX: usize = 512;

/// Why a text is no address of a service or a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl(String);

impl BadUrl {
    pub(super) fn new(why: String) -> BadUrl {
        BadUrl(why)
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUrl {}

/// Where to send requests: a host with its port, and what paths begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// As in the Host header.
    authority: String,
    host: String,
    port: u16,
    prefix: String,
}

impl Base {
    /// Reads `http://HOST:PORT/PREFIX`.
    pub(super) fn parse(url: &str) -> Result<Base, BadUrl> {
        let form = "write http://HOST:PORT";
        let bad = |why: &str| BadUrl(format!("{why}: {form}"));
        if url.len() > URL_BYTES_MAX {
            return Err(bad("this address is too long"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("this is no address"))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(scheme) if *scheme == Scheme::HTTPS => {
                return Err(BadUrl(
                    "https is not spoken here: let a proxy on this machine encrypt, and name it as http://127.0.0.1:PORT"
                        .into(),
                ));
            }
            _ => return Err(bad("this is no http address")),
        }
        let authority = uri.authority().ok_or_else(|| bad("this address names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("an address holds no user and no password"));
        }
        if uri.query().is_some() {
            return Err(bad("an address holds no query"));
        }
        Ok(Base {
            authority: authority.as_str().to_owned(),
            // Brackets are for the text of an IPv6 address, not for its resolution.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Where a `Location` of an answer from here leads: another host, or another path of this one. A path is whole.
    pub(super) fn resolve(&self, location: &str) -> Result<(Base, String), BadUrl> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok((Base { prefix: String::new(), ..self.clone() }, location.to_owned()));
        }
        let elsewhere = Base::parse(location)?;
        let path = if elsewhere.prefix.is_empty() { "/".to_owned() } else { elsewhere.prefix.clone() };
        Ok((Base { prefix: String::new(), ..elsewhere }, path))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) body: Bytes,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nobody has heard the request.
    Unreachable(String),
    /// It may have been heard, and carried out.
    Lost(String),
}

impl NoAnswer {
    pub(super) fn why(self) -> String {
        match self {
            NoAnswer::Unreachable(why) | NoAnswer::Lost(why) => why,
        }
    }
}

/// What is asked, and of whom.
struct Ask<'a> {
    method: Method,
    base: &'a Base,
    path: &'a str,
    headers: &'a [(HeaderName, String)],
    body: &'a Bytes,
}

type Connection = SendRequest<Full<Bytes>>;

/// Connections to any number of addresses.
#[derive(Debug, Default)]
pub(super) struct Client {
    idle: Mutex<BTreeMap<String, Vec<Connection>>>,
}

impl Client {
    /// Posts JSON, and waits `patience` for all of the answer, which has at most `bytes_max`. A request may be sent twice, if a kept
    /// connection ends under it: what it asks must bear that.
    pub(super) async fn post(
        &self,
        base: &Base,
        path: &str,
        headers: &[(HeaderName, String)],
        body: &Bytes,
        bounds: (Duration, usize),
    ) -> Result<Answer, NoAnswer> {
        self.ask(&Ask { method: Method::POST, base, path, headers, body }, bounds).await
    }

    /// Gets something, within the same bounds.
    pub(super) async fn get(
        &self,
        base: &Base,
        path: &str,
        bounds: (Duration, usize),
    ) -> Result<Answer, NoAnswer> {
        let (headers, body) = (&[][..], &Bytes::new());
        self.ask(&Ask { method: Method::GET, base, path, headers, body }, bounds).await
    }

    async fn ask(&self, ask: &Ask<'_>, (patience, bytes_max): (Duration, usize)) -> Result<Answer, NoAnswer> {
        let base = ask.base;
        let exchange = async {
            if let Some(kept) = self.kept(base)
                && let Ok(answer) = self.exchange(kept, ask, bytes_max).await
            {
                return Ok(answer);
            }
            let fresh = connect(base).await?;
            self.exchange(fresh, ask, bytes_max).await
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer::Lost(format!("{base} did not answer within {patience:?}"))),
        }
    }

    fn kept(&self, base: &Base) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&base.authority)?;
        kept.retain(|connection| !connection.is_closed());
        kept.pop_if(|connection| connection.is_ready())
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        ask: &Ask<'_>,
        bytes_max: usize,
    ) -> Result<Answer, NoAnswer> {
        let Ask { method, base, path, headers, body } = ask;
        let lost = |error: &dyn fmt::Display| NoAnswer::Lost(one_line(&format!("{base}: {error}")));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", base.prefix))
            .header(HOST, &base.authority)
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in *headers {
            request = request.header(name, value);
        }
        let unsendable =
            |error: http::Error| NoAnswer::Unreachable(one_line(&format!("{base}{path}: {error}")));
        let request = request.body(Full::new(Bytes::clone(body))).map_err(unsendable)?;
        let response = connection.send_request(request).await.map_err(|error| lost(&error))?;
        let (head, body) = response.into_parts();
        let body = read(body, bytes_max).await.map_err(|error| lost(&error))?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(base.authority.clone()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
        let location = head.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        Ok(Answer { status: head.status, location: location.map(str::to_owned), body })
    }
}

async fn connect(base: &Base) -> Result<Connection, NoAnswer> {
    let unreachable = |error: &dyn fmt::Display| {
        NoAnswer::Unreachable(one_line(&format!("{base} cannot be reached: {error}")))
    };
    let stream =
        TcpStream::connect((base.host.as_str(), base.port)).await.map_err(|error| unreachable(&error))?;
    // Requests are small and waited for.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    tokio::spawn(async move {
        // Its end is seen by whoever uses it.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, String> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(format!("its answer was cut off, or has more than {bytes_max} bytes ({error})")),
    }
}
