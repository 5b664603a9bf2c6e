//! The API's documentation: the document, the page that shows it, and what it promises.

use serde_json::Value;

use crate::browser::Browser;
use crate::process::{Waypost, wait_until};

/// Presses what it takes to try out the create of a link as the page proposes it.
const TRY: &str = "#operations-links-createLink";

#[test]
fn a_person_reads_the_documentation_in_a_browser_and_tries_out_a_create() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let document: Value = waypost.get("/openapi.json").json().unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let count: usize = paths.map(|item| item.as_object().unwrap().len()).sum();
    let browser = Browser::start();
    browser.open(&format!("{}/docs", waypost.url));
    wait_until("each operation is listed", || {
        browser.run("return document.querySelectorAll('.opblock').length") == count
    });
    browser.click(&format!("{TRY} .opblock-summary-control"));
    for button in [".try-out__btn", ".execute"] {
        let selector = format!("{TRY} {button}");
        let script = format!("return document.querySelector('{selector}') !== null");
        wait_until("the next button is there", || browser.run(&script) == true);
        browser.click(&selector);
    }
    let script = format!(
        "return document.querySelector('{TRY} .live-responses-table tbody .response-col_status')\
         ?.innerText ?? null"
    );
    wait_until("the answer is shown", || browser.run(&script).is_string());
    let status = browser.run(&script).as_str().unwrap().to_owned();
    assert!(status.starts_with("201"), "{status}");
    assert_eq!(waypost.follow("spring-sale").0, 302);
    // The strict policy has kept the page from nothing.
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_list_of_error_codes_is_a_page_too() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let browser = Browser::start();
    browser.open(&format!("{}/docs/errors#link_gone", waypost.url));
    assert_eq!(
        browser.run("return document.querySelector('tr:target td').innerText"),
        "410"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
