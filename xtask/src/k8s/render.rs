//! Rendering, and the schemas of what Kubernetes itself serves.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use waypost_testbed::kubernetes;

use super::checks::{Broken, CORE};
use super::objects::{Objects, text, title};

/// The oldest version that the manifests are for, and the newest with schemas here.
const VERSIONS: [&str; 2] = ["1.32", "1.37"];

/// Prints a line for each object of the list that is not of its schema, strictly:
/// a field that nobody reads is an error.
const VALIDATE: &str = "
import json, sys, kubernetes_validate
objects = json.load(sys.stdin)
for version in sys.argv[1:]:
    for at, item in enumerate(objects):
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except Exception as error:
            said = getattr(error, 'message', None) or str(error)
            print(json.dumps([at, version + ': ' + said]))
";

/// All objects of a folder; a warning is as bad as an error.
pub(super) fn render(folder: &Path) -> Result<(String, Objects), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    let output = kubernetes::kubectl()
        .map_err(|error| failed(&error))?
        .arg("kustomize")
        .arg(folder)
        .output()
        .map_err(|error| failed(&error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !said.trim().is_empty() {
        return Err(failed(&said.trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let objects = Objects::parse(&text).map_err(|error| failed(&error))?;
    Ok((text, objects))
}

/// What is not of its schema.
pub(super) fn against_schemas(objects: &Objects) -> Result<Vec<Broken>, String> {
    let core: Vec<&Value> = objects
        .0
        .iter()
        .filter(|object| CORE.contains(&text(&object["apiVersion"])))
        .collect();
    let failed = |error: &dyn std::fmt::Display| format!("kubernetes-validate: {error}");
    let list = serde_json::to_string(&core).map_err(|error| failed(&error))?;
    let mut child = kubernetes::python()
        .map_err(|error| failed(&error))?
        .arg("-c")
        .arg(VALIDATE)
        .args(VERSIONS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(list.as_bytes())
            .map_err(|error| failed(&error))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines
        .lines()
        .map(|line| {
            let (at, problem): (usize, String) =
                serde_json::from_str(line).map_err(|error| failed(&error))?;
            Ok(Broken::new("schema", &title(core[at]), problem))
        })
        .collect()
}
