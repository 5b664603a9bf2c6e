//! The page, in a real browser: headless Chromium, driven over WebDriver.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::{Value, json};
use waypost_testbed::Port;

use crate::process::{User, Waypost, token, wait_until};
use crate::statistics::{self, ANNA, BEN, ROBOT};

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    http: Client,
    session: String,
    _port: Port,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
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
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } } } });
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

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page, and answers what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What the console has said since it was last asked: errors, and what a policy
    /// has kept the page from.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().expect("the log is a list");
        let message = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
        entries.iter().map(message).collect()
    }

    pub(crate) fn resize(&self, width: u32, height: u32) {
        self.post("/window/rect", &json!({ "width": width, "height": height }));
    }

    /// Whether there is such an element, and it can be seen.
    pub(crate) fn shows(&self, selector: &str) -> bool {
        let script =
            format!("return document.querySelector('{selector}')?.checkVisibility() ?? false");
        self.run(&script) == true
    }

    /// What stands in the first element that a selector finds; empty if there is none.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector('{selector}')?.textContent ?? ''");
        self.run(&script).as_str().unwrap().to_owned()
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

    pub(crate) fn click(&self, selector: &str) {
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

/// A server, and another one that its links may lead to, so that the browser needs no
/// network.
struct Pair {
    waypost: Waypost,
    elsewhere: Waypost,
    data: [tempfile::TempDir; 2],
}

impl Pair {
    fn start() -> Self {
        let data = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let options = [("WAYPOST_ALLOW_PRIVATE_DESTINATIONS", "true")];
        Self {
            waypost: Waypost::start_with(data[0].path(), &options),
            elsewhere: Waypost::start(data[1].path()),
            data,
        }
    }

    fn token(&self) -> String {
        token(self.data[0].path())
    }
}

#[test]
fn a_person_shortens_a_url_in_a_browser_and_follows_it() {
    let pair = Pair::start();
    let (waypost, elsewhere) = (&pair.waypost, &pair.elsewhere);
    let browser = Browser::start();
    browser.open(&format!("{}/", waypost.url));
    browser.type_into("#url", &format!("{}/robots.txt", elsewhere.url));
    browser.click("#shorten");
    let shown = || browser.run("return document.getElementById('short')?.href ?? null");
    wait_until("the short URL is shown", || shown().is_string());
    let short = shown().as_str().unwrap().to_owned();
    assert!(short.starts_with(&waypost.url), "{short}");
    browser.click("#short");
    wait_until("the browser is sent on", || {
        browser.run("return location.href") == format!("{}/robots.txt", elsewhere.url)
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

#[test]
fn a_person_types_a_password_on_a_phone_wrong_and_then_right() {
    // Elsewhere is of another origin, as destinations are: a browser holds that against
    // the form's policy, also where the form's answer redirects.
    let pair = Pair::start();
    let (waypost, elsewhere) = (&pair.waypost, &pair.elsewhere);
    let link = json!({ "longUrl": format!("{}/robots.txt", elsewhere.url), "alias": "locked",
                       "password": "open sesame", "forwardQuery": true });
    let created = waypost.send("POST", "/api/v1/links", &pair.token(), &link);
    assert_eq!(created.status(), 201);

    let browser = Browser::start();
    browser.resize(390, 844);
    browser.open(&format!("{}/locked?from=phone", waypost.url));
    assert_eq!(
        browser.run("return document.activeElement.id"),
        "password",
        "the field has the focus"
    );
    let is_styled = "return getComputedStyle(document.querySelector('button')).cursor";
    assert_eq!(
        browser.run(is_styled),
        "pointer",
        "the policy lets the stylesheet in"
    );
    let overflow = "return document.documentElement.scrollWidth > innerWidth";
    assert_eq!(browser.run(overflow), false);

    let problem = || browser.run("return document.querySelector('[role=alert]')?.textContent");
    assert_eq!(problem(), Value::Null);
    browser.type_into("#password", "open says me");
    browser.click("button");
    wait_until("the problem is shown", || {
        problem() == "That is not the password."
    });
    browser.type_into("#password", "open sesame\n");
    wait_until("the browser is sent on", || {
        browser.run("return location.href") == format!("{}/robots.txt?from=phone", elsewhere.url)
    });
}

#[test]
fn a_person_looks_where_a_link_leads_and_goes_on() {
    let pair = Pair::start();
    let (waypost, elsewhere) = (&pair.waypost, &pair.elsewhere);
    let title = "<img src=x onerror=document.title='run'>\"'";
    let link = json!({ "longUrl": format!("{}/robots.txt?a='\"<b>", elsewhere.url), "alias": "shown",
                       "title": title });
    let created = waypost.send("POST", "/api/v1/links", &pair.token(), &link);
    let created: Value = created.json().unwrap();

    let browser = Browser::start();
    browser.resize(390, 844);
    browser.open(&format!("{}/shown+", waypost.url));
    let text = |selector: &str| {
        browser.run(&format!(
            "return document.querySelector('{selector}').textContent"
        ))
    };
    assert_eq!(text(".title"), title);
    assert_eq!(text(".target"), created["longUrl"]);
    assert_eq!(
        browser.run("return document.title"),
        "Where this link leads"
    );
    let overflow = "return document.documentElement.scrollWidth > innerWidth";
    assert_eq!(browser.run(overflow), false);
    browser.click("a.button");
    wait_until("the browser is sent on", || {
        browser.run("return location.pathname") == "/robots.txt"
    });
    assert_eq!(browser.run("return document.referrer"), "");
}

#[test]
fn a_person_goes_from_a_new_link_to_its_statistics_and_reads_them_on_a_phone() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &statistics::OPTIONS);
    let browser = Browser::start();
    browser.resize(390, 844);
    browser.open(&format!("{}/", waypost.url));
    browser.type_into("#url", "https://example.com/looked-at");
    browser.click("#shorten");
    let shown = |selector: &str| browser.shows(selector);
    wait_until("the link to statistics is shown", || {
        shown("#answer .beside")
    });
    browser.click("#answer .beside");
    wait_until("the page says that there was nobody", || shown("#none"));
    assert_eq!(browser.text("#none"), "Nobody has followed this link yet.");
    let path = browser.run("return location.pathname");
    let slug = path
        .as_str()
        .unwrap()
        .strip_prefix("/stats/")
        .unwrap()
        .to_owned();

    ANNA.follow(&waypost, &slug, 30);
    BEN.follow(&waypost, &slug, 12);
    ROBOT.follow(&waypost, &slug, 5);
    wait_until("all clicks are counted", || waypost.clicks(&slug) == 47);
    browser.click("#refresh");
    wait_until("the numbers are shown", || browser.text("#people") == "42");
    assert_eq!(browser.text("#bots"), "5");
    assert_eq!(browser.text("#visitors"), "2");
    assert!(!shown("#none"));
    assert!(browser.text("#counted").contains("UTC"));
    let columns = "return document.querySelectorAll('#chart .column').length";
    assert_eq!(browser.run(columns), 30);
    let rows = |list: &str| {
        let script = format!(
            "return [...document.querySelectorAll('section[aria-label=\"{list}\"] tbody tr')].map(row => \
             [...row.querySelectorAll('th, td')].map(cell => cell.textContent).join(' '))"
        );
        browser.run(&script)
    };
    assert_eq!(
        rows("Countries"),
        json!(["Switzerland 30 71 %", "France 12 29 %"])
    );
    assert_eq!(rows("Referrers")[0], "news.example 30 71 %");
    assert_eq!(rows("Devices")[1], "Phone 12 29 %");
    for width in [390, 1280] {
        browser.resize(width, 844);
        let overflow = "return document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.run(overflow), false, "at {width}");
    }
    // By the keyboard, to another period.
    browser.type_into("#period", "24 hours");
    wait_until("hours are shown", || browser.run(columns) == 24);
    browser.click("#points summary");
    let table = "return document.querySelectorAll('#points tbody tr').length";
    assert_eq!(browser.run(table), 24);
    // The strict policy has kept the page from nothing.
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn statistics_that_need_a_token_are_shown_to_who_types_it_in_and_it_stays_in_the_tab() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let user = User::of(&waypost, data.path(), "shop");
    let link = json!({ "longUrl": "https://example.com/own", "alias": "ownlink" });
    assert_eq!(user.send("POST", "/api/v1/links", &link).0, 201);
    let browser = Browser::start();
    browser.open(&format!("{}/stats/ownlink", waypost.url));
    let is_hidden = |id: &str| !browser.shows(&format!("#{id}"));
    wait_until("the page asks for a token", || !is_hidden("access"));
    assert_eq!(
        browser.text("#problem"),
        "There is no such link. If it is yours, show your token."
    );
    assert!(is_hidden("report"));
    browser.type_into("#token", "no.good.token\n");
    wait_until("the token is refused", || {
        browser.text("#problem").contains("token")
    });
    browser.type_into("#token", user.token());
    browser.click("#access button");
    wait_until("the numbers are shown", || !is_hidden("report"));
    assert!(is_hidden("access"));
    assert!(is_hidden("problem"));
    // It is asked for once in a tab, and is nowhere but there.
    browser.open(&format!("{}/stats/ownlink", waypost.url));
    wait_until("the numbers are shown again", || !is_hidden("report"));
    let elsewhere = "return localStorage.length + document.cookie.length";
    assert_eq!(browser.run(elsewhere), 0);
    assert_eq!(browser.run("return location.search"), "");
}
