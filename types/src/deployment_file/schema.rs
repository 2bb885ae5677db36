//! The JSON Schema of the deployment file, which editors read. It knows types and names; the rules that go
//! beyond them are this module's siblings' work.

use serde_json::{Value, json};

use crate::DeploymentSpec;

/// The JSON Schema (draft 2020-12) of a deployment file.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(DeploymentSpec).to_value();
    if let Value::Object(fields) = &mut schema {
        fields.insert("title".to_owned(), json!("HVM deployment"));
    }
    schema
}
