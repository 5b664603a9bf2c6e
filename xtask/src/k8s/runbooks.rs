//! What the runbooks have an operator type at `kubectl` can be typed: each object, label,
//! container and folder that they name is there when the manifests are applied.

use std::collections::BTreeSet;
use std::fs;

use super::checks::{Place, secrets};
use super::objects::{Labels, Objects, containers, name_of, text};
use super::{overlay, program_options, render, steps, topology};

/// Pages beside the runbooks that have such commands.
const PAGES: [&str; 1] = ["deploy/k8s/README.md"];

/// Flags of kubectl that have a value of their own.
const WITH_VALUE: [&str; 15] = [
    "--context",
    "--field-manager",
    "--for",
    "--namespace",
    "--replicas",
    "--tail",
    "--timeout",
    "--type",
    "-L",
    "-c",
    "-k",
    "-l",
    "-n",
    "-o",
    "-p",
];

/// One call of kubectl.
#[derive(Debug, Default)]
struct Command {
    verb: String,
    /// What follows the verb, without flags.
    names: Vec<String>,
    /// Each with its value, or with an empty one.
    flags: Vec<(String, String)>,
}

impl Command {
    fn flag(&self, names: [&str; 2]) -> Option<&str> {
        let found = self.flags.iter().find(|(name, _)| names.contains(&&**name));
        found.map(|(_, value)| &**value)
    }

    fn parse(words: &[String]) -> Self {
        let mut command = Self::default();
        let mut words = words.iter().take_while(|word| *word != "--");
        while let Some(word) = words.next() {
            if let Some((flag, value)) = word.split_once('=').filter(|_| word.starts_with('-')) {
                command.flags.push((flag.to_owned(), value.to_owned()));
            } else if word.starts_with('-') {
                let has_value = WITH_VALUE.contains(&&**word);
                let value = if has_value {
                    words.next().cloned()
                } else {
                    None
                };
                command
                    .flags
                    .push((word.clone(), value.unwrap_or_default()));
            } else if command.verb.is_empty() {
                command.verb.clone_from(word);
            } else {
                command.names.push(word.clone());
            }
        }
        command
    }
}

/// The calls of a page: between backticks, and in blocks of a console behind `$`. `inside`
/// is what the README calls kubectl with its context and its namespace.
fn commands(page: &str) -> Vec<Command> {
    let mut codes: Vec<String> = Vec::new();
    let mut is_block = false;
    for line in page.replace("\\\n", " ").lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            codes.extend(line.trim_start().strip_prefix("$ ").map(str::to_owned));
        } else {
            codes.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let mut commands = Vec::new();
    let is_call = |code: &String| code.contains("kubectl") || code.contains("inside ");
    for code in codes.into_iter().filter(is_call) {
        // A call within another one's words is a call as well.
        let code = code
            .replace("$(", " ; ")
            .replace(") ", " ; ")
            .replace(";", " ; ");
        let code = code.strip_suffix(')').unwrap_or(&code);
        let words = shlex::split(code).unwrap_or_else(|| panic!("a quote is open: {code}"));
        let is_end = |word: &String| matches!(&**word, "|" | ";" | "&&" | "}");
        for call in words.split(is_end) {
            let starts = |word: &String| matches!(&**word, "kubectl" | "inside");
            if let Some(at) = call.iter().position(starts) {
                let command = Command::parse(&call[at + 1..]);
                // Where it is only said what it is called, or what is put before it.
                if !command.verb.is_empty() && !command.verb.starts_with('$') {
                    commands.push(command);
                }
            }
        }
    }
    commands
}

/// What an operator fills in, as in `POD`, `$PRIMARY` or `deployment/NAME`.
fn is_open(word: &str) -> bool {
    let word = word.rsplit('/').next().unwrap_or(word);
    word.starts_with('$') || word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// All that there is, in whichever region.
struct Everything {
    /// As in `("Deployment", "gateway")`.
    objects: BTreeSet<(String, String)>,
    pods: Vec<Labels>,
    containers: BTreeSet<String>,
}

impl Everything {
    fn rendered() -> Self {
        let (topology, options) = (topology().unwrap(), program_options().unwrap());
        let mut all = Self {
            objects: BTreeSet::new(),
            pods: Vec::new(),
            // The operator of Postgres calls it so.
            containers: BTreeSet::from(["postgres".to_owned()]),
        };
        for place_of in topology.regions() {
            let objects: Objects = render::render(&overlay(&place_of.1.name)).unwrap().1;
            let place = Place::new(&topology, place_of, &objects, &options);
            let mut add = |kind: &str, name: &str| {
                all.objects.insert((kind.to_owned(), name.to_owned()));
            };
            secrets::of(&place)
                .keys()
                .for_each(|name| add("Secret", name));
            for object in &objects.0 {
                let (kind, name) = (text(&object["kind"]), name_of(object));
                add(kind, name);
                if kind == "Cluster" {
                    for number in 1..=object["spec"]["instances"].as_u64().unwrap() {
                        let server = format!("{name}-{number}");
                        add("Pod", &server);
                        add("PersistentVolumeClaim", &server);
                        if !object["spec"]["walStorage"].is_null() {
                            add("PersistentVolumeClaim", &format!("{server}-wal"));
                        }
                    }
                }
            }
            for pod in objects.pods() {
                all.pods.push(pod.labels);
                let spec = pod.template.into_iter();
                let names = spec.flat_map(|spec| containers(spec).map(|one| text(&one["name"])));
                all.containers.extend(names.map(str::to_owned));
            }
        }
        all
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        is_open(name) || self.objects.contains(&(kind.to_owned(), name.to_owned()))
    }

    /// What of a command cannot be.
    fn wrong(&self, command: &Command) -> Option<String> {
        let namespace = command.flag(["-n", "--namespace"]);
        if let Some(other) = namespace.filter(|name| *name != "waypost") {
            return Some(format!("nothing is in the namespace {other}"));
        }
        if let Some(selector) = command.flag(["-l", "--selector"]) {
            let (key, value) = selector.split_once('=')?;
            let is_it = |labels: &Labels| {
                let there = labels.get(key);
                there.is_some_and(|there| is_open(value) || there == value)
            };
            if !self.pods.iter().any(is_it) {
                return Some(format!("nothing is labelled {selector}"));
            }
        }
        if let Some(container) = command.flag(["-c", "--container"])
            && !self.containers.contains(container)
        {
            return Some(format!("there is no container {container}"));
        }
        if let Some(folder) = command.flag(["-k", "--kustomize"]) {
            let folder = folder.replace("$REGION", "eu-west-1").replace("$1", "app");
            let file = steps::root().join(folder).join("kustomization.yaml");
            return (!file.is_file()).then(|| format!("there is no {}", file.display()));
        }
        let names: Vec<&str> = command.names.iter().map(String::as_str).collect();
        match (&*command.verb, &*names) {
            ("exec" | "logs", [target]) if target.contains('/') => self.of_kind(&[*target]),
            ("exec" | "logs", [] | [_]) => {
                let pod = names.first().copied().unwrap_or("POD");
                (!self.has("Pod", pod)).then(|| format!("there is no pod {pod}"))
            }
            ("cnpg", ["promote", cluster, pod]) => {
                let is_there = self.has("Cluster", cluster) && self.has("Pod", pod);
                (!is_there).then(|| format!("there is no {cluster} with {pod}"))
            }
            ("create", ["namespace", name]) => {
                (!self.has("Namespace", name)).then(|| format!("nothing is in {name}"))
            }
            ("create", ["secret", "generic", name]) => {
                (!self.has("Secret", name)).then(|| format!("nothing reads {name}"))
            }
            ("rollout", ["restart" | "status" | "undo", rest @ ..]) => self.of_kind(rest),
            // What an annotation or a forwarded port is called comes last.
            ("annotate", [kind, name, _]) => self.of_kind(&[*kind, *name]),
            ("port-forward", [target, _]) => self.of_kind(&[*target]),
            ("delete" | "describe" | "get" | "patch" | "scale" | "wait", rest) => {
                self.of_kind(rest)
            }
            _ => Some("is none that this test understands".to_owned()),
        }
    }

    /// Of `KIND/NAME ..`, or of `KIND[,KIND] [NAME ..]`.
    fn of_kind(&self, words: &[&str]) -> Option<String> {
        let mut pairs = Vec::new();
        let (first, rest) = words.split_first()?;
        if is_open(first) {
            return None;
        }
        if first.contains('/') {
            pairs.extend(words.iter().filter_map(|word| word.split_once('/')));
        } else {
            for kind in first.split(',') {
                pairs.extend(rest.iter().map(|name| (kind, *name)));
                if rest.is_empty() {
                    pairs.push((kind, "ANY"));
                }
            }
        }
        pairs.iter().find_map(|(word, name)| {
            let Some(kind) = kind_of(word) else {
                return Some(format!("{word} is no kind that is made here"));
            };
            (!self.has(kind, name)).then(|| format!("there is no {kind} {name}"))
        })
    }
}

fn kind_of(word: &str) -> Option<&'static str> {
    let word = word.split('.').next()?;
    Some(match word.strip_suffix('s').unwrap_or(word) {
        "certificate" => "Certificate",
        "cluster" => "Cluster",
        "configmap" => "ConfigMap",
        "deployment" => "Deployment",
        "gateway" => "Gateway",
        "hpa" => "HorizontalPodAutoscaler",
        "job" => "Job",
        "kafka" => "Kafka",
        "kafkauser" => "KafkaUser",
        "pod" => "Pod",
        "podmonitor" => "PodMonitor",
        "pvc" => "PersistentVolumeClaim",
        "secret" => "Secret",
        "svc" => "Service",
        _ => return None,
    })
}

#[test]
fn what_runbooks_have_typed_names_what_is_there() {
    let root = steps::root();
    let mut pages: Vec<_> = PAGES.map(|page| root.join(page)).into();
    let runbooks = fs::read_dir(root.join("docs/runbooks")).unwrap();
    pages.extend(runbooks.map(|page| page.unwrap().path()));
    let everything = Everything::rendered();
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages {
        // The shard that one page adds is like the one that there is before it.
        let text = fs::read_to_string(&page).unwrap().replace("s6", "s5");
        for command in commands(&text) {
            seen += 1;
            if let Some(problem) = everything.wrong(&command) {
                let page = page.file_name().unwrap().display();
                wrong.push(format!("{page}: {problem}: {command:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen >= 50, "{seen} commands");
}

#[test]
fn a_command_for_what_is_not_there_is_found() {
    let everything = Everything::rendered();
    for page in [
        "`kubectl -n kafka get pods`",
        "`kubectl -n waypost get pods -l app.kubernetes.io/name=gateways`",
        "`kubectl -n waypost rollout undo deployment/gateways`",
        "`kubectl -n waypost exec pg-s0-1 -c postgresql -- psql`",
        "`inside delete hpa shard`",
        "`TOKEN=$(inside get cluster s0 -o jsonpath='{.status.demotionToken}')`",
        "```console\n$ kubectl diff -k deploy/k8s/overlays/$REGION/apps\n```",
        "`kubectl -n waypost delete pvc/pg-s0-2 pvc/pg-s0-2-log`",
    ] {
        let commands = commands(page);
        assert_eq!(commands.len(), 1, "{page}");
        assert!(everything.wrong(&commands[0]).is_some(), "{page}");
    }
}
