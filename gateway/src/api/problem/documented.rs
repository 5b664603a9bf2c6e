//! Problems in the API's document: what each route may refuse with, and the table of
//! all codes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::StatusCode;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::{Code, Problem};

/// Names a type for the `responses(..)` of a route: each of the codes in these slices,
/// under its status.
macro_rules! problems {
    ($visibility:vis $name:ident: $($codes:expr),+ $(,)?) => {
        /// What can go wrong here, for the document.
        $visibility struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                $crate::api::problem::responses(&[$($codes),+])
            }
        }
    };
}
pub(crate) use problems;

/// The answers with these codes, by status.
pub(crate) fn responses(codes: &[&[Code]]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes.iter().copied().flatten() {
        let same = by_status.entry(code.status().as_u16()).or_default();
        if !same.contains(code) {
            same.push(*code);
        }
    }
    let answers = by_status.into_iter();
    let answer = |(status, codes): (u16, Vec<Code>)| (status.to_string(), response(&codes).into());
    answers.map(answer).collect()
}

/// One answer for codes of the same status.
fn response(codes: &[Code]) -> Response {
    let mut description = String::new();
    let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    for code in codes {
        let (name, meaning) = (code.name(), code.meaning());
        writeln!(description, "* `{name}`: {meaning}").expect("a text takes text");
        let example = serde_json::to_value(Problem::new(*code, meaning));
        let example = ExampleBuilder::new()
            .summary(code.remedy())
            .value(Some(example.expect("texts and numbers are JSON")));
        content = content.examples_from_iter([(name, example.build())]);
    }
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content.build());
    match codes.first().map(|code| code.status()) {
        Some(StatusCode::UNAUTHORIZED) => {
            let header = HeaderBuilder::new()
                .schema(Some(Object::with_type(Type::String)))
                .description(Some("How to say who asks."));
            response = response.header("WWW-Authenticate", header.build());
        }
        Some(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
            let seconds = ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(1));
            let header = HeaderBuilder::new()
                .schema(Some(seconds.build()))
                .description(Some("Seconds to wait before the next try."));
            response = response.header("Retry-After", header.build());
        }
        Some(StatusCode::METHOD_NOT_ALLOWED) => {
            let header = HeaderBuilder::new()
                .schema(Some(Object::with_type(Type::String)))
                .description(Some("The methods that the path takes."));
            response = response.header("Allow", header.build());
        }
        _ => {}
    }
    response.build()
}

/// The schema of a code: one of all there are.
pub(super) fn code_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(format!("What is wrong, for programs.\n\n{}", table())))
        .enum_values(Some(Code::ALL.iter().map(|code| code.name())))
        .build()
}

/// All codes as a Markdown table.
#[must_use]
pub fn table() -> String {
    let mut table = String::from("| Status | Code | Meaning | What to do |\n|---|---|---|---|\n");
    for code in Code::ALL {
        let (status, name) = (code.status().as_u16(), code.name());
        let (meaning, remedy) = (code.meaning(), code.remedy());
        writeln!(table, "| {status} | `{name}` | {meaning} | {remedy} |")
            .expect("a text takes text");
    }
    table
}
