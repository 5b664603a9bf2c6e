//! The StatefulSet of gateways that may take the place of their Deployment.

use serde_norway::{Mapping, Value};

use super::MADE;

/// The same pods, with a volume each in place of the one that goes with the pod.
pub(super) fn stateful(deployment: &str) -> Result<String, String> {
    let failed = |error: serde_norway::Error| format!("gateway: {error}");
    let mut value: Value = serde_norway::from_str(deployment).map_err(failed)?;
    value["kind"] = "StatefulSet".into();
    let spec = value["spec"].as_mapping_mut().ok_or("gateway: no spec")?;
    spec.remove("strategy");
    spec.insert("serviceName".into(), "gateway".into());
    // A new pod is told from an old one only by what a StatefulSet calls it.
    let pod = spec["template"]["spec"]
        .as_mapping_mut()
        .ok_or("gateway: no pod")?;
    if let Some(Value::Sequence(spread)) = pod.get_mut("topologySpreadConstraints") {
        for constraint in spread {
            constraint["matchLabelKeys"] = vec![Value::from("controller-revision-hash")].into();
        }
    }
    let Some(Value::Sequence(volumes)) = pod.get_mut("volumes") else {
        return Err("gateway: no volumes".to_owned());
    };
    let size = volumes.iter().find(|volume| volume["name"] == "spool");
    let size = size.ok_or("gateway: no spool")?["emptyDir"]["sizeLimit"].clone();
    volumes.retain(|volume| volume["name"] != "spool");
    let claim = format!(
        "metadata: {{name: spool}}\nspec:\n  accessModes: [ReadWriteOnce]\n  resources:\n    requests: {{storage: {}}}\n",
        size.as_str().unwrap_or_default()
    );
    let claim: Mapping = serde_norway::from_str(&claim).map_err(failed)?;
    let claims = vec![Value::Mapping(claim)];
    spec.insert("volumeClaimTemplates".into(), claims.into());
    let text = serde_norway::to_string(&value).map_err(failed)?;
    let head = MADE.replace("deploy/topology.yaml", "base/gateway/deployment.yaml");
    Ok(head + &text)
}
