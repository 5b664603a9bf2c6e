//! Starting and ending `waypost`.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use waypost_testbed::{Port, token};

/// On a machine that runs a dozen other tests.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Waypost {
    child: Child,
    pub(crate) http: Client,
    pub(crate) url: String,
    _ports: [Port; 2],
}

impl Waypost {
    /// Starts on a data folder and waits until it is ready.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub(crate) fn start_with(data: &Path, options: &[(&str, &str)]) -> Self {
        Self::start_as(data, options, Stdio::inherit())
    }

    /// With its log in a file.
    pub(crate) fn start_logging(data: &Path, log: &Path, options: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(log).unwrap();
        Self::start_as(data, options, log.into())
    }

    fn start_as(data: &Path, options: &[(&str, &str)], log: Stdio) -> Self {
        let ports = [Port::reserve().unwrap(), Port::reserve().unwrap()];
        let child = command()
            .env("WAYPOST_LISTEN", ports[0].address())
            .env("WAYPOST_ADMIN_LISTEN", ports[1].address())
            .env("WAYPOST_DATA_DIR", data)
            .envs(options.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let http = Client::builder()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        let mut waypost = Self {
            child,
            http,
            url: format!("http://{}", ports[0].address()),
            _ports: ports,
        };
        let ready = format!("http://{}/ready", waypost._ports[1].address());
        wait_until("waypost is ready", || {
            assert_eq!(waypost.child.try_wait().unwrap(), None, "it ended");
            let answer = waypost.http.get(&ready).send();
            answer.is_ok_and(|answer| answer.status() == 200)
        });
        waypost
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let signalled = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(signalled.unwrap().success());
        let mut ended = None;
        wait_until("waypost ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    pub(crate) fn shorten(&self, url: &str) -> String {
        let request = self.http.post(format!("{}/shorten", self.url));
        let answer = request.json(&json!({ "url": url })).send().unwrap();
        assert_eq!(answer.status(), 201);
        let answer: Value = answer.json().unwrap();
        let slug = answer["slug"].as_str().unwrap();
        assert_eq!(answer["shortUrl"], format!("{}/{slug}", self.url));
        slug.to_owned()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().unwrap();
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.url)).send().unwrap()
    }

    /// What the admin port says of the process.
    pub(crate) fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self._ports[1].address());
        self.http.get(url).send().unwrap().text().unwrap()
    }

    pub(crate) fn follow(&self, slug: &str) -> (u16, String) {
        let answer = self.get(&format!("/{slug}"));
        let location = answer.headers().get("location");
        let location = location.map_or("", |value| value.to_str().unwrap());
        (answer.status().as_u16(), location.to_owned())
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    pub(crate) fn clicks(&self, slug: &str) -> u64 {
        let answer = self.get(&format!("/api/v1/links/{slug}/stats"));
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().unwrap()["clicks"].as_u64().unwrap()
    }

    pub(crate) fn send(&self, method: &str, path: &str, token: &str, body: &Value) -> Response {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(token)
            .json(body)
            .send()
            .unwrap()
    }
}

/// Somebody with a token.
pub(crate) struct User<'a> {
    waypost: &'a Waypost,
    token: String,
}

impl<'a> User<'a> {
    /// Of this tenant, with every scope.
    pub(crate) fn of(waypost: &'a Waypost, data: &Path, tenant: &str) -> Self {
        Self::with_scopes(waypost, data, tenant, token::ALL_SCOPES)
    }

    pub(crate) fn with_scopes(
        waypost: &'a Waypost,
        data: &Path,
        tenant: &str,
        scopes: &str,
    ) -> Self {
        let secret = std::fs::read_to_string(data.join("secrets/jwt-hs256")).unwrap();
        let token = token::sign(secret.trim().as_bytes(), tenant, scopes);
        Self { waypost, token }
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.waypost.url);
        let request = self.waypost.http.request(method.parse().unwrap(), url);
        request.bearer_auth(&self.token)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        answer(self.request(method, path).json(body).send().unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request("GET", path).send().unwrap())
    }
}

/// The status and the JSON of an answer; `null` if it has no body.
pub(crate) fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.bytes().unwrap();
    let value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    (status, value)
}

impl Drop for Waypost {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A key that allows everything, also on links that were made without a key.
pub(crate) fn token(data: &Path) -> String {
    key(data, &["--admin", "--tenant", "anonymous"])
}

/// The program, with nothing of the tests' own environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    command.env_clear();
    command
}

/// A new API key, made by the command.
pub(crate) fn key(data: &Path, arguments: &[&str]) -> String {
    let output = command()
        .args(["keys", "create", "--data-dir"])
        .arg(data)
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what}: not in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
