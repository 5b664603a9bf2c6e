//! The page, in a real browser: headless Chromium, driven over WebDriver.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::{Value, json};
use waypost_testbed::Port;

use crate::process::{Waypost, wait_until};

/// A browser with one window.
struct Browser {
    driver: Child,
    http: Client,
    session: String,
    _port: Port,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let port = Port::reserve().unwrap();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", port.number()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: `cargo xtask packages`");
        let http = Client::builder()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            http,
            session: format!("http://{}", port.address()),
            _port: port,
            _profile: profile,
        };
        wait_until("chromedriver answers", || {
            let status = browser.http.get(format!("{}/status", browser.session));
            status.send().is_ok_and(|answer| answer.status() == 200)
        });
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let options = json!({ "args": ["--headless", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", profile] });
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let session = browser.post("/session", &wanted);
        let id = session["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/session/{id}", browser.session);
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.session));
        let answer: Value = request.json(body).send().unwrap().json().unwrap();
        answer["value"].clone()
    }

    fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page, and answers what it returns.
    fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The first element that a selector finds.
    fn element(&self, selector: &str) -> String {
        let found = self.post(
            "/element",
            &json!({ "using": "css selector", "value": selector }),
        );
        let id = found.as_object().unwrap().values().next().unwrap();
        id.as_str().expect("the element is there").to_owned()
    }

    fn type_into(&self, selector: &str, text: &str) {
        let path = format!("/element/{}/value", self.element(selector));
        self.post(&path, &json!({ "text": text }));
    }

    fn click(&self, selector: &str) {
        let path = format!("/element/{}/click", self.element(selector));
        self.post(&path, &json!({}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.http.delete(&self.session).send();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
fn a_person_shortens_a_url_in_a_browser_and_follows_it() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let browser = Browser::start();
    browser.open(&format!("{}/", waypost.url));
    // A page of this server, so that the browser needs no network.
    browser.type_into("#url", &format!("{}/robots.txt", waypost.url));
    browser.click("#shorten");
    let shown = || browser.run("return document.getElementById('short')?.href ?? null");
    wait_until("the short URL is shown", || shown().is_string());
    let short = shown().as_str().unwrap().to_owned();
    assert!(short.starts_with(&waypost.url), "{short}");
    browser.click("#short");
    wait_until("the browser is sent on", || {
        browser.run("return location.pathname") == "/robots.txt"
    });
}

#[test]
fn a_refused_url_is_explained_on_the_page() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let browser = Browser::start();
    browser.open(&format!("{}/", waypost.url));
    browser.type_into("#url", "ftp://example.com/");
    browser.click("#shorten");
    let problem = || browser.run("return document.querySelector('.problem')?.textContent ?? null");
    wait_until("the problem is shown", || problem().is_string());
    assert_eq!(problem(), "Only http and https URLs can be shortened.");
    browser.open(&format!("{}/nosuchslug", waypost.url));
    assert_eq!(
        browser.run("return document.title"),
        "There is no such link"
    );
}
