//! The JSON Schema of the deployment file, which editors read: `docs/deployment.schema.json`. It says what
//! one field may hold; what several may hold together is `relations`' work.

use serde_json::{Value, json};

use crate::{DeploymentSpec, GroupSpec};

/// A DNS label (RFC 1123).
const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// The JSON Schema (draft 2020-12) of a deployment file.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(DeploymentSpec).to_value();
    schema["title"] = json!("HVM deployment");
    for (pointer, keyword, value) in narrowings() {
        let part = schema.pointer_mut(pointer).and_then(Value::as_object_mut);
        part.expect("every narrowed part is in the schema").insert(keyword.to_owned(), value);
    }
    schema
}

/// What the types alone do not tell: ranges and forms.
fn narrowings() -> Vec<(&'static str, &'static str, Value)> {
    let copies = json!(GroupSpec::MAX_COPIES);
    vec![
        ("/properties/jobs", "minItems", json!(1)),
        ("/$defs/JobSpec/properties/groups", "minItems", json!(1)),
        ("/$defs/GroupSpec/properties/tasks", "minItems", json!(1)),
        ("/$defs/GroupSpec/properties/tasks", "maxItems", json!(1)),
        ("/$defs/GroupSpec/properties/partitions", "minimum", json!(1)),
        ("/$defs/GroupSpec/properties/partitions", "maximum", copies.clone()),
        ("/$defs/GroupSpec/properties/replicas", "minimum", json!(1)),
        ("/$defs/GroupSpec/properties/replicas", "maximum", copies.clone()),
        ("/$defs/UpdatePolicy/properties/max_parallel", "minimum", json!(1)),
        ("/$defs/UpdatePolicy/properties/max_parallel", "maximum", copies),
        ("/$defs/CpuMhz", "minimum", json!(1)),
        ("/$defs/HistoryLimits", "minProperties", json!(1)),
        ("/$defs/IdempotencySpec", "minProperties", json!(1)),
        ("/$defs/Resources/properties/memory", "minimum", json!(1)),
        ("/$defs/Resources/properties/memory", "maximum", json!(65_536)),
        ("/$defs/Resources/properties/mailbox", "minimum", json!(1)),
        ("/$defs/Resources/properties/mailbox", "maximum", json!(65_536)),
        ("/$defs/Constraint/properties/value", "minItems", json!(1)),
        ("/$defs/KeySource/oneOf/0/properties/path_segment", "minimum", json!(1)),
        ("/$defs/RouteMatch/properties/prefix", "pattern", json!("^/")),
        ("/$defs/Grants/properties/http/items", "pattern", json!("^https?://[^/?#@]+$")),
        ("/$defs/Grants/properties/keyvalue/items", "const", json!("default")),
        ("/$defs/ByteSize", "pattern", json!("^[0-9]+ *([KMG]i)?B$")),
        ("/$defs/Period", "examples", json!(["500ms", "30s", "2m"])),
        ("/$defs/ImageRef", "pattern", json!("(\\.aimg|@sha256:[0-9a-f]{64})$")),
        ("/$defs/DeploymentName", "pattern", json!(NAME)),
        ("/$defs/GroupName", "pattern", json!(NAME)),
        ("/$defs/JobName", "pattern", json!(NAME)),
        ("/$defs/PackageName", "pattern", json!(NAME)),
        ("/$defs/TaskName", "pattern", json!(NAME)),
    ]
}
