//! The settings of the state store: which one is meant, and the key of an S3 API. A key comes from the environment or
//! from a file, never from a flag, which every user of the machine could read, and is shown nowhere.

use std::path::{Path, PathBuf};

use hvm_agent::{S3Config, StateStore};
use serde::Deserialize;

use crate::cli::StateArgs;
use crate::failure::Failure;

/// The region, unless something else is said: stores that are not Amazon's mostly take it.
const REGION: &str = "us-east-1";

/// What stands in a file with a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

/// The store that the settings name. `environment` knows the variables of the environment.
pub(crate) fn state_store(
    args: StateArgs,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<StateStore, Failure> {
    let store = args.store.as_deref().unwrap_or("local");
    if let Some(place) = store.strip_prefix("s3://") {
        return s3(place, &args, environment).map(StateStore::S3);
    }
    if args.endpoint.is_some() || args.region.is_some() || args.credentials.is_some() {
        return Err(Failure::new(format!(
            "state-endpoint, state-region and state-credentials are for a store s3://BUCKET/PREFIX, and it is `{store}`"
        )));
    }
    match store {
        "local" => Ok(StateStore::Local),
        path if path.contains('/') && !path.contains("://") => Ok(StateStore::Directory(PathBuf::from(path))),
        other => Err(Failure::new(format!("`{other}` is no state store"))
            .hint("write `local`, a directory with a `/` in it, or s3://BUCKET/PREFIX")),
    }
}

fn s3(
    place: &str,
    args: &StateArgs,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<S3Config, Failure> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(Failure::new("the state store names no bucket: write s3://BUCKET/PREFIX"));
    }
    let set = |names: &[&str]| names.iter().find_map(|name| environment(name).filter(|set| !set.is_empty()));
    let region = args.region.clone().or_else(|| set(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    let region = region.unwrap_or_else(|| REGION.to_owned());
    let endpoint = args.endpoint.clone().or_else(|| set(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
        return Err(Failure::new(format!("`{endpoint}` is no address of an S3 API: write https://HOST")));
    }
    let key = match &args.credentials {
        Some(path) => Some(credentials(path)?),
        None => set(&["AWS_ACCESS_KEY_ID"]).zip(set(&["AWS_SECRET_ACCESS_KEY"])),
    };
    let (access_key_id, secret_access_key) = key.ok_or_else(|| {
        Failure::new(format!("there is no key for the state store s3://{place}")).hint(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with --state-credentials FILE",
        )
    })?;
    Ok(S3Config {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        region,
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        access_key_id,
        secret_access_key,
    })
}

fn credentials(path: &Path) -> Result<(String, String), Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("can't read the key in {shown}: {error}")))?;
    // What is wrong with it is not said in detail: that would quote the line, and the key with it.
    let Credentials { access_key_id, secret_access_key } = toml::from_str(&text).map_err(|_| {
        Failure::new(format!(
            "{shown} holds no key: it must be TOML with access-key-id and secret-access-key"
        ))
    })?;
    Ok((access_key_id, secret_access_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(args: StateArgs, environment: &[(&str, &str)]) -> Result<StateStore, String> {
        let find =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, set)| (*set).to_owned());
        state_store(args, find).map_err(|failure| failure.text())
    }

    fn named(store: &str) -> StateArgs {
        StateArgs { store: Some(store.to_owned()), ..StateArgs::default() }
    }

    const KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "very-secret")];

    #[test]
    fn one_setting_names_a_directory_or_a_bucket() {
        assert_eq!(store(StateArgs::default(), &[]), Ok(StateStore::Local));
        assert_eq!(store(named("/mnt/state"), &[]), Ok(StateStore::Directory("/mnt/state".into())));
        let expected = S3Config {
            endpoint: "https://s3.us-east-1.amazonaws.com".to_owned(),
            region: "us-east-1".to_owned(),
            bucket: "state".to_owned(),
            prefix: "of/a/cluster".to_owned(),
            access_key_id: "id".to_owned(),
            secret_access_key: "very-secret".to_owned(),
        };
        assert_eq!(store(named("s3://state/of/a/cluster/"), &KEY), Ok(StateStore::S3(expected)));
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_what_to_write() {
        let refused = |args, environment: &[_]| store(args, environment).expect_err("a refusal");
        assert!(refused(named("shared"), &[]).contains("`shared` is no state store"));
        assert!(refused(named("gs://bucket"), &[]).contains("is no state store"));
        assert!(refused(named("s3:///x"), &KEY).contains("names no bucket"));
        assert!(refused(named("s3://b"), &[]).contains("there is no key"));
        let endpoint = Some("https://s3.example".to_owned());
        assert!(refused(StateArgs { endpoint, ..named("local") }, &[]).contains("s3://BUCKET"));
    }

    #[test]
    fn a_key_is_read_from_a_file_and_shown_nowhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let credentials = dir.path().join("key.toml");
        let args = || StateArgs { credentials: Some(credentials.clone()), ..named("s3://b") };
        std::fs::write(&credentials, "access-key-id = \"id\"\nsecret-access-key = \"very-secret\"\n")
            .expect("a file");
        let from_file = store(args(), &[]).expect("a key");
        assert_eq!(store(named("s3://b"), &KEY).as_ref(), Ok(&from_file));
        assert!(!format!("{from_file:?}").contains("very-secret"), "{from_file:?}");
        std::fs::write(&credentials, "secret-access-key = very-secret\n").expect("a file");
        let text = store(args(), &[]).expect_err("it is no TOML");
        assert!(text.contains("holds no key") && !text.contains("very-secret"), "{text}");
    }
}
