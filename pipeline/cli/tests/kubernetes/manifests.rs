//! The manifests of `k8s/` as kustomize renders them, and how the tests beside this look things up in them.
//! Never here: what must be in them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What a folder renders to, such as `k8s/base`.
pub fn render(folder: &Path) -> Vec<Value> {
    let output =
        Command::new(kubectl()).arg("kustomize").arg(folder).output().unwrap_or_else(|error| {
            panic!("kubectl cannot be run ({error}); install it, or have .ci/run do so")
        });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl kustomize {}: {said}", folder.display());
    parse(&String::from_utf8(output.stdout).unwrap())
}

/// The documents of a YAML file.
pub fn parse(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("no YAML: {error}\n{text}"))
}

/// The pinned one that `.ci/run` installs, else the one on PATH.
fn kubectl() -> PathBuf {
    let installed = root().join("target/foreign/kubernetes/bin/kubectl");
    if installed.exists() { installed } else { "kubectl".into() }
}

/// What is at a path of fields such as `spec/template`; null where nothing is.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, field| match field.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[field],
    })
}

/// A text at a path; empty where there is none.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The items of a list at a path; none where there is no list.
pub fn items<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    at(value, path).as_array().into_iter().flatten()
}

/// Whatever has pods.
pub fn is_workload(object: &Value) -> bool {
    ["Job", "StatefulSet", "Deployment", "DaemonSet"].contains(&text(object, "kind"))
}

/// `Job/validate`.
pub fn id(object: &Value) -> String {
    format!("{}/{}", text(object, "kind"), text(object, "metadata/name"))
}

/// The containers of a workload, those that run first included.
pub fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    let first = items(workload, "spec/template/spec/initContainers");
    first.chain(items(workload, "spec/template/spec/containers"))
}

/// Whether a label selector selects what has these labels. An empty one selects everything.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object();
    let equal = wanted.into_iter().flatten().all(|(name, value)| labels[name] == *value);
    let fits = items(selector, "matchExpressions").all(|expression| {
        let value = &labels[text(expression, "key")];
        match text(expression, "operator") {
            "Exists" => !value.is_null(),
            "DoesNotExist" => value.is_null(),
            "In" => items(expression, "values").any(|one| one == value),
            "NotIn" => items(expression, "values").all(|one| one != value),
            other => panic!("a selector's operator is no {other:?}"),
        }
    });
    equal && fits
}

/// The labels of a workload's pods.
pub fn pod_labels(workload: &Value) -> &Value {
    at(workload, "spec/template/metadata/labels")
}
