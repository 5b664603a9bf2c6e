//! What each request says, and which answers are right.

use bytes::Bytes;
use fastrand::Rng;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;

use crate::client::{Answer, Outgoing};
use crate::links::{Link, Links};
use crate::mix::{Kind, Mix};
use crate::record::Failure;
use crate::target::Target;
use crate::zipf::Zipf;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("waypost-loadtest/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Marks the destination of an edited link, so that a redirect that sees
/// either the old or the new one is right.
const EDIT_MARK: &str = "edit=";
/// What a link is edited to when its own destination is not known.
const UNKNOWN_DESTINATION: &str = "https://example.com/loadtest/edited";

/// Everything that may be asked in a run.
#[derive(Debug)]
pub struct Traffic {
    mix: Mix,
    links: Links,
    popularity: Option<Zipf>,
    authorization: Option<HeaderValue>,
}

/// One request, before it is put into words.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// What is asked.
    pub kind: Kind,
    /// Which link, if the kind needs one.
    link: usize,
    /// Makes misses, created links and edits differ from each other.
    nonce: u64,
}

impl Traffic {
    /// With the exponent of the links' popularity.
    #[must_use]
    pub fn new(mix: Mix, links: Links, zipf: f64, authorization: Option<HeaderValue>) -> Self {
        let popularity = (!links.is_empty()).then(|| Zipf::new(links.len(), zipf));
        Self {
            mix,
            links,
            popularity,
            authorization,
        }
    }

    /// Decides what to ask next.
    pub fn draw(&self, rng: &mut Rng) -> Ask {
        Ask {
            kind: self.mix.pick(rng),
            link: self.popularity.as_ref().map_or(0, |zipf| zipf.index(rng)),
            nonce: rng.u64(..),
        }
    }

    /// The request for a target.
    #[must_use]
    pub fn request(&self, ask: Ask, target: &Target) -> Outgoing {
        let (method, path, body) = match ask.kind {
            Kind::Redirect => (Method::GET, format!("/{}", self.link(ask).slug), None),
            Kind::Miss => (Method::GET, format!("/{}", unknown_slug(ask.nonce)), None),
            Kind::Create => {
                let body = long_url_body(&format!("{}/{:x}", created_base(), ask.nonce));
                (Method::POST, "/api/v1/links".to_owned(), Some(body))
            }
            Kind::Edit => {
                let link = self.link(ask);
                let path = format!("/api/v1/links/{}", link.slug);
                let body = long_url_body(&edited(link, ask.nonce));
                (Method::PATCH, path, Some(body))
            }
            Kind::Stats => {
                let path = format!("/api/v1/links/{}/stats", self.link(ask).slug);
                (Method::GET, path, None)
            }
        };
        let public = matches!(ask.kind, Kind::Redirect | Kind::Miss);
        let authorization = self.authorization.as_ref().filter(|_| !public);
        request(method, &path, body, target, authorization)
    }

    /// Whether an answer is the right one.
    ///
    /// # Errors
    /// [`Failure::Status`] and [`Failure::Location`].
    pub fn judge(&self, ask: Ask, answer: &Answer) -> Result<(), Failure> {
        let status = answer.status();
        let expected = match ask.kind {
            Kind::Redirect => matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308),
            Kind::Miss => status == StatusCode::NOT_FOUND,
            Kind::Create => status == StatusCode::CREATED,
            Kind::Edit | Kind::Stats => status == StatusCode::OK,
        };
        if !expected {
            return Err(Failure::Status(status.as_u16()));
        }
        if ask.kind == Kind::Redirect && !leads_home(self.link(ask), answer.headers()) {
            return Err(Failure::Location);
        }
        Ok(())
    }

    fn link(&self, ask: Ask) -> Link<'_> {
        self.links.at(ask.link)
    }
}

/// A request with the headers that all of them have.
///
/// # Panics
/// When the path is none.
#[must_use]
pub fn request(
    method: Method,
    path: &str,
    body: Option<Bytes>,
    target: &Target,
    authorization: Option<&HeaderValue>,
) -> Outgoing {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = path
        .parse()
        .expect("slugs are checked when they are read, the rest are constants");
    let headers = request.headers_mut();
    headers.insert(HOST, target.host_header().clone());
    headers.insert(USER_AGENT, AGENT);
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, value.clone());
    }
    if let Some(body) = body {
        headers.insert(CONTENT_TYPE, JSON);
        *request.body_mut() = Full::new(body);
    }
    request
}

/// The destination of the n-th link made before the run: as long as those that
/// people shorten.
#[must_use]
pub fn prepared_long_url(index: usize) -> String {
    format!("https://example.com/loadtest/{index}?utm_source=newsletter&utm_medium=email")
}

const fn created_base() -> &'static str {
    "https://example.com/loadtest/created"
}

fn long_url_body(long_url: &str) -> Bytes {
    serde_json::json!({ "longUrl": long_url })
        .to_string()
        .into()
}

/// Eight random base62 characters: one in 10^8 even among a million links.
fn unknown_slug(nonce: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut left = nonce;
    let digits = std::iter::repeat_with(|| {
        let digit = DIGITS[(left % 62) as usize];
        left /= 62;
        char::from(digit)
    });
    digits.take(8).collect()
}

fn edited(link: Link<'_>, nonce: u64) -> String {
    let base = link.long_url.unwrap_or(UNKNOWN_DESTINATION);
    format!("{base}{}{EDIT_MARK}{nonce:x}", separator(base))
}

fn leads_home(link: Link<'_>, headers: &HeaderMap) -> bool {
    let Some(location) = headers.get(LOCATION) else {
        return false;
    };
    let Some(base) = link.long_url else {
        return true;
    };
    let Some(rest) = location.as_bytes().strip_prefix(base.as_bytes()) else {
        return false;
    };
    let edit = rest.strip_prefix(separator(base).as_bytes());
    rest.is_empty() || edit.is_some_and(|edit| edit.starts_with(EDIT_MARK.as_bytes()))
}

fn separator(base: &str) -> &'static str {
    if base.contains('?') { "&" } else { "?" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://example.com/a?b=c";

    fn traffic(mix: &str) -> Traffic {
        let mut links = Links::default();
        links.push("abc", Some(BASE)).unwrap();
        let token = HeaderValue::from_static("Bearer t");
        Traffic::new(mix.parse().unwrap(), links, 1.0, Some(token))
    }

    fn answer(status: u16, location: Option<&str>) -> Answer {
        let mut response = Answer::new(Bytes::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(location) = location {
            let value = location.parse().unwrap();
            response.headers_mut().insert(LOCATION, value);
        }
        response
    }

    #[test]
    fn a_redirect_must_lead_to_the_link_or_an_edit_of_it() {
        let traffic = traffic("redirect=1");
        let ask = traffic.draw(&mut Rng::with_seed(1));
        let edit = edited(traffic.link(ask), 9);
        for (location, expected) in [
            (Some(BASE), Ok(())),
            (Some(edit.as_str()), Ok(())),
            (Some("https://example.com/other"), Err(Failure::Location)),
            (Some("https://example.com/a?b=cd"), Err(Failure::Location)),
            (None, Err(Failure::Location)),
        ] {
            let judged = traffic.judge(ask, &answer(302, location));
            assert_eq!(judged, expected, "{location:?}");
        }
        let ok = traffic.judge(ask, &answer(200, Some(BASE)));
        assert_eq!(ok, Err(Failure::Status(200)));
    }

    #[test]
    fn each_kind_has_its_status() {
        for (mix, right, wrong) in [
            ("miss=1", 404, 302),
            ("create=1", 201, 200),
            ("edit=1", 200, 412),
            ("stats=1", 200, 503),
        ] {
            let traffic = traffic(mix);
            let ask = traffic.draw(&mut Rng::with_seed(1));
            assert_eq!(traffic.judge(ask, &answer(right, None)), Ok(()));
            let judged = traffic.judge(ask, &answer(wrong, None));
            assert_eq!(judged, Err(Failure::Status(wrong)));
        }
    }

    #[test]
    fn the_token_goes_to_the_api_and_not_to_redirects() {
        let target = Target::resolve("http://127.0.0.1:1").unwrap();
        for (mix, sent) in [
            ("redirect=1", false),
            ("miss=1", false),
            ("create=1", true),
            ("edit=1", true),
            ("stats=1", true),
        ] {
            let traffic = traffic(mix);
            let ask = traffic.draw(&mut Rng::with_seed(1));
            let request = traffic.request(ask, &target);
            assert_eq!(request.headers().contains_key(AUTHORIZATION), sent, "{mix}");
        }
    }
}
