//! `GET /api/v1/links/{slug}/qr`: the short URL as a QR code, drawn as SVG.

use std::fmt::Write as _;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use qrcode::{Color, EcLevel, QrCode};
use url::form_urlencoded;

use super::auth::Reader;
use super::etag::{IfNoneMatch, is_known};
use super::link::{InPath, own_link};
use super::named::Named;
use super::{Api, Code, Problem, auth, problem};
use crate::lanes::Lane;

/// Pixels.
const SIZES: std::ops::RangeInclusive<usize> = 64..=2_048;
const DEFAULT_SIZE: usize = 256;

/// Modules of white around the code. The standard wants 4; less is for who frames it.
const MARGINS: std::ops::RangeInclusive<usize> = 0..=16;
const DEFAULT_MARGIN: usize = 4;

/// Nothing in the picture runs or loads anything, and it is to stay so wherever it is
/// opened.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");

/// The picture of a slug hardly ever changes, but it is for those who may read the link.
const KEPT: HeaderValue = HeaderValue::from_static("private, max-age=86400");

#[derive(Debug)]
struct Look {
    size: usize,
    margin: usize,
}

/// The query in the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it carries documentation alone")]
pub(super) struct InQuery {
    /// Width and height in pixels.
    #[param(minimum = 64, maximum = 2048, default = 256, example = 512)]
    size: Option<u32>,
    /// White around the code, in modules; readers want 4.
    #[param(minimum = 0, maximum = 16, default = 4, example = 4)]
    margin: Option<u32>,
}

problem::problems!(Problems: auth::PROBLEMS, &[Code::LinkNotFound, Code::LinkGone,
    Code::QueryInvalid], problem::OF_SHARDS);

/// Draw a link's QR code.
#[utoipa::path(
    get,
    path = "/api/v1/links/{slug}/qr",
    operation_id = "drawQrCode",
    tag = "links",
    params(InPath, InQuery, IfNoneMatch),
    responses(
        (status = 200, description = "The short URL as a QR code.", body = String,
            content_type = "image/svg+xml",
            headers(("ETag" = String, description = "Changes with the picture."))),
        (status = 304, description = "The client has it already."),
        Problems,
    ),
    security(("bearer" = ["links:read"])),
)]
pub(super) async fn qr(
    State(api): State<Api>,
    Reader(tenant): Reader,
    Named(key): Named,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let look = look(query.as_deref().unwrap_or_default())?;
    let _place = api.enter(Lane::Single)?;
    let link = own_link(&api, &tenant, key).await?;
    let svg = draw(&api.short_url(&link.key.slug), &look).ok_or_else(|| {
        Problem::new(
            Code::QueryInvalid,
            "The short URL is too long for a QR code.",
        )
    })?;
    let tag = format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(svg.as_bytes()));
    let tag = HeaderValue::from_str(&tag).expect("hex digits are visible ASCII");
    let mut response = if is_known(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        svg.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("image/svg+xml"),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::CACHE_CONTROL, KEPT);
    headers.insert(header::ETAG, tag);
    Ok(response)
}

fn look(query: &str) -> Result<Look, Problem> {
    let refused = |detail: String| Problem::new(Code::QueryInvalid, detail);
    let (mut size, mut margin) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let (slot, range) = match &*name {
            "size" => (&mut size, SIZES),
            "margin" => (&mut margin, MARGINS),
            _ => return Err(refused("This path takes size and margin.".to_owned())),
        };
        let number = value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() || slot.is_some() {
            let (from, to) = range.into_inner();
            return Err(refused(format!(
                "{name} is one number from {from} to {to}."
            )));
        }
        *slot = number;
    }
    Ok(Look {
        size: size.unwrap_or(DEFAULT_SIZE),
        margin: margin.unwrap_or(DEFAULT_MARGIN),
    })
}

/// One path for all dark modules, in which each run of them in a row is one rectangle.
fn draw(text: &str, look: &Look) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let (width, margin) = (code.width(), look.margin);
    let whole = width + 2 * margin;
    let mut path = String::new();
    for (y, row) in code.to_colors().chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] == Color::Dark {
                let (left, top, long) = (x + margin, y + margin, run.len());
                let _ = write!(path, "M{left} {top}h{long}v1h-{long}z");
            }
            x += run.len();
        }
    }
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{size}\" height=\"{size}\" \
         viewBox=\"0 0 {whole} {whole}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{whole}v{whole}h-{whole}z\"/>\
         <path fill=\"#000\" d=\"{path}\"/></svg>\n",
        size = look.size,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_and_other_parameters_are_refused() {
        for bad in [
            "size=63",
            "size=2049",
            "size=x",
            "margin=17",
            "margin=-1",
            "format=png",
            "size=64&size=65",
        ] {
            assert!(look(bad).is_err(), "{bad}");
        }
        let least = look("size=64&margin=0").unwrap();
        assert_eq!((least.size, least.margin), (64, 0));
    }

    #[test]
    fn the_dark_modules_are_drawn_where_they_are_behind_the_margin() {
        let text = "https://s.example/abcdefgh";
        let svg = draw(
            text,
            &Look {
                size: 300,
                margin: 2,
            },
        )
        .unwrap();
        let code = QrCode::with_error_correction_level(text, EcLevel::M).unwrap();
        let path = svg.split("fill=\"#000\" d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        let mut dark = vec![Color::Light; code.width() * code.width()];
        for run in path.split_terminator('z') {
            let (at, rest) = run.strip_prefix('M').unwrap().split_once('h').unwrap();
            let (x, y) = at.split_once(' ').unwrap();
            let [x, y]: [usize; 2] = [x, y].map(|text| text.parse().unwrap());
            let long: usize = rest.split_once('v').unwrap().0.parse().unwrap();
            for step in 0..long {
                dark[(y - 2) * code.width() + x - 2 + step] = Color::Dark;
            }
        }
        assert_eq!(dark, code.to_colors());
    }
}
