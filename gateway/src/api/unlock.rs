//! `POST /{slug}`: a visitor sends the password of a link.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use waypost_domain::{DomainId, LinkKey, Verdict};

use super::body::Form;
use super::link::InPath;
use super::{Api, Code, Problem, preview, problem};
use crate::client::ClientAddress;
use crate::lookup::Whole;
use crate::pages::{self, Answer, Asked, NOT_KEPT};
use crate::passwords;
use crate::redirect::{Visit, sent_to, slug_of};

/// What a password's form takes, percent-encoded throughout: 128 bytes of three
/// characters each, and the name of the field.
pub(super) const FORM: usize = 1024;

/// A password for a link.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = Unlock)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it carries documentation alone")]
struct Fields {
    #[schema(min_length = 1, max_length = 128, format = Password, example = "open sesame")]
    password: String,
}

problem::problems!(Problems: &[Code::FormInvalid, Code::BodyIncomplete, Code::BodyTimeout,
    Code::BodyTooLarge, Code::NotAForm, Code::PasswordWrong, Code::TooManyAttempts,
    Code::RateLimited,
    Code::LinkNotFound, Code::RouteNotFound, Code::LinkGone, Code::LinkBlocked,
    Code::ShardUnavailable, Code::Overloaded]);

/// Follow a link that asks for a password.
///
/// Who accepts `text/html` by name is told what is wrong on a page. The visit is counted.
#[utoipa::path(
    post,
    path = "/{slug}",
    operation_id = "unlockLink",
    tag = "visits",
    params(InPath),
    request_body(content = Fields, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The password is right. Where the operator has it so: a page \
            that shows where the link leads, since its host mixes alphabets.",
            body = String, content_type = "text/html"),
        (status = 302, description = "There is no such link, and the operator has a place for \
            those who ask for one.", headers(
            ("Location" = String, description = "The place."))),
        (status = 303, description = "The password is right, or the link asks for none.", headers(
            ("Location" = String, description = "Where the link leads, or the link itself."))),
        Problems,
    ),
)]
pub(super) async fn unlock(
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    uri: Uri,
    headers: HeaderMap,
    form: Result<Form<FORM>, Problem>,
) -> Response {
    if preview::previewed(uri.path()).is_some() {
        return problem::method_not_allowed(uri).await;
    }
    let request = Request {
        api: &api,
        client,
        uri: &uri,
        headers: &headers,
    };
    let answer = match form.and_then(|form| password(&form)) {
        Ok(password) => request.answer(password).await,
        Err(problem) => pages::refused(&problem, &headers),
    };
    answer.map(axum::body::Body::new)
}

fn password(form: &Form<FORM>) -> Result<String, Problem> {
    let mut fields = url::form_urlencoded::parse(&form.0);
    match (fields.next(), fields.next()) {
        (Some((name, value)), None)
            if name == "password" && (1..=passwords::MAX_LEN).contains(&value.len()) =>
        {
            Ok(value.into_owned())
        }
        _ => Err(Problem::new(
            Code::FormInvalid,
            format!(
                "The form has one field, password, of 1 to {} bytes.",
                passwords::MAX_LEN
            ),
        )),
    }
}

struct Request<'a> {
    api: &'a Api,
    client: ClientAddress,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

impl Request<'_> {
    async fn answer(&self, password: String) -> Answer {
        let Some(slug) = slug_of(self.uri.path()) else {
            return pages::refused(&problem::no_such_route().await, self.headers);
        };
        let key = Arc::new(LinkKey {
            domain: DomainId::MAIN,
            slug: slug.into(),
        });
        let redirects = &self.api.0.redirects;
        if let Err(often) = redirects.attempts.by(self.client) {
            return pages::password(Asked::TooOften(often.0), self.headers);
        }
        if let Err(problem) = redirects.may_ask(key.slug.borrowed(), self.client) {
            return pages::refused(&problem, self.headers);
        }
        // The shard's word, and not a cache's: these do not hold the hash.
        let whole = match redirects.lookup.whole(&key).await {
            Ok(Some(whole)) => whole,
            Ok(None) => {
                redirects.limits.missed(self.client);
                return redirects.refusal(StatusCode::NOT_FOUND, self.headers);
            }
            Err(error) => {
                redirects.lookup.metrics.unanswered(error.reason());
                return redirects.refusal(StatusCode::SERVICE_UNAVAILABLE, self.headers);
            }
        };
        match (whole.verdict, &whole.link.password_hash) {
            (Verdict::Password, Some(hash)) => {
                let hash = hash.clone();
                self.check(&whole, password, hash).await
            }
            // Its password was taken away meanwhile: it is followed like any other.
            (Verdict::Redirect, _) => self.to_itself(),
            (verdict, _) => redirects.not_followed(verdict, self.headers),
        }
    }

    async fn check(&self, whole: &Whole, password: String, hash: String) -> Answer {
        let key = &whole.link.key;
        let redirects = &self.api.0.redirects;
        let Ok(check) = redirects.passwords.check().await else {
            return pages::refused(&Problem::passwords_overloaded(), self.headers);
        };
        // Asked only now that it is our turn, so that guesses that come all at once do
        // not overtake the count.
        if let Err(often) = redirects.attempts.at(key, self.client) {
            return pages::password(Asked::TooOften(often.0), self.headers);
        }
        if !check.matches(password, hash).await {
            redirects.attempts.wrong(key, self.client);
            return pages::password(Asked::Wrong, self.headers);
        }
        let visit = Visit {
            query: self.uri.query(),
            headers: self.headers,
            client: self.client,
            counts: true,
        };
        // The browser goes on with GET, and the password stays here.
        redirects
            .follow(&whole.target, whole.now, StatusCode::SEE_OTHER, &visit)
            .await
    }

    fn to_itself(&self) -> Answer {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let location = HeaderValue::from_str(path).expect("a URI is visible ASCII");
        sent_to(location, StatusCode::SEE_OTHER, NOT_KEPT)
    }
}
