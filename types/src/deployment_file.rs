//! The deployment file: YAML or JSON text to a checked [`crate::DeploymentSpec`], with errors that point at file,
//! line and field.
