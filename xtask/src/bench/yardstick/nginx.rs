//! nginx with one worker that answers the same redirects out of a map.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use waypost_testbed::{Port, Sandbox, Server};

use crate::Error;
use crate::bench::cpu;
use crate::bench::links::Links;
use crate::bench::load::{self, Answered, Load};

/// Places for entries of a map: twice as many as there are, so that few share one.
const PLACES_PER_ENTRY: usize = 2;

/// Fair to nginx: nothing is logged, connections are kept for as long as they are
/// used, and there is no condition on the way. It counts and records nothing.
const SETTINGS: &str = "\
daemon off;
worker_processes 1;
error_log stderr error;
pid {folder}/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    map_hash_max_size {places};
    map_hash_bucket_size 256;
    map $uri $target {
        include {folder}/nginx.map;
    }
    server {
        listen {address} backlog=4096;
        location / {
            add_header Cache-Control \"private, no-store\";
            return 302 $target;
        }
    }
}
";

#[derive(Debug)]
pub(crate) struct Nginx {
    server: Server,
    port: Port,
}

/// One turn of nginx.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) answered: Answered,
    pub(crate) micros: f64,
}

impl Nginx {
    /// Starts it with those links.
    pub(crate) fn start(sandbox: &Arc<Sandbox>, links: &Links) -> Result<Self, Error> {
        let port = Port::reserve()?;
        let folder = sandbox.folder();
        let mut map = String::new();
        for (slug, long_url) in links.read()? {
            // Writing to a string does not fail.
            let _ = writeln!(map, "\"/{slug}\" \"{long_url}\";");
        }
        let settings = SETTINGS
            .replace("{folder}", &folder.display().to_string())
            .replace("{address}", &port.address())
            .replace("{places}", &(PLACES_PER_ENTRY * links.count()).to_string());
        let file = folder.join("nginx.conf");
        fs::write(folder.join("nginx.map"), map)
            .and_then(|()| fs::write(&file, settings))
            .map_err(|error| Error::Step(format!("nginx cannot be set up: {error}")))?;
        let arguments = vec!["-c".to_owned(), file.display().to_string()];
        let server = Server::start_in(sandbox, "nginx", "nginx", arguments, &port.address())?;
        Ok(Self { server, port })
    }

    pub(crate) fn turn(
        &self,
        sandbox: &Sandbox,
        load: Load<'_>,
        connections: usize,
        seconds: u64,
    ) -> Result<Turn, Error> {
        let before = cpu::spent(self.server.pid());
        let url = format!("http://{}", self.port.address());
        let answered = load::run(sandbox, &[url], load, connections, seconds)?;
        if answered.failed > 0 {
            return Err(Error::Step("nginx did not answer as expected".to_owned()));
        }
        let spent = cpu::spent(self.server.pid()) - before;
        Ok(Turn {
            answered,
            micros: spent.as_secs_f64() * 1e6 / answered.requests as f64,
        })
    }
}
