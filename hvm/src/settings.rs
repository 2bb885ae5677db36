//! Settings of the daemons: flags and environment (read by clap) go before the TOML file, which goes before
//! the defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::cli::{AgentArgs, DevArgs, SchedulerArgs, StateArgs};
use crate::failure::Failure;

/// Where requests to apps arrive, unless something else is said.
pub(crate) const INGRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where the scheduler's API is, unless something else is said.
pub(crate) const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);
/// Where an agent's API is, unless something else is said.
pub(crate) const AGENT_API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7071);

/// The word by which the agent starts this program to compile one component.
pub(crate) const COMPILE: &str = "compile-component";

/// The data directory, unless something else is said.
pub(crate) fn data_dir(said: Option<PathBuf>) -> PathBuf {
    said.unwrap_or_else(|| PathBuf::from("hvm-data"))
}

fn read<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, Failure> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("can't read the settings in {}: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// Fills what `$args` leaves open from its file.
macro_rules! merge {
    ($args:ident, $file:ident, $($field:ident),*) => {
        $($args.$field = $args.$field.or($file.$field);)*
    };
}

/// The settings of `hvm dev`.
pub(crate) fn dev(mut args: DevArgs) -> Result<DevArgs, Failure> {
    let file: DevArgs = read(args.config.as_deref())?;
    merge!(
        args,
        file,
        data,
        trust,
        ingress,
        api,
        workers,
        memory,
        cpu,
        compile_time,
        compile_memory,
        log_format
    );
    args.state = state(args.state, file.state);
    Ok(args)
}

/// The settings of `hvm agent`.
pub(crate) fn agent(mut args: AgentArgs) -> Result<AgentArgs, Failure> {
    let file: AgentArgs = read(args.config.as_deref())?;
    merge!(
        args,
        file,
        host,
        scheduler,
        data,
        trust,
        ingress,
        api,
        workers,
        memory,
        cpu,
        compile_time,
        compile_memory
    );
    if args.attributes.is_empty() {
        args.attributes = file.attributes;
    }
    args.state = state(args.state, file.state);
    Ok(args)
}

/// Fills what the flags leave open about the state from the file.
fn state(mut args: StateArgs, file: StateArgs) -> StateArgs {
    merge!(args, file, store, endpoint, region, credentials);
    args
}

/// The settings of `hvm scheduler`.
pub(crate) fn scheduler(mut args: SchedulerArgs) -> Result<SchedulerArgs, Failure> {
    let file: SchedulerArgs = read(args.config.as_deref())?;
    merge!(args, file, data, api, host_timeout, log_format);
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dev.toml");
        std::fs::write(
            &path,
            "data = \"from-file\"\ningress = \"127.0.0.1:9\"\n[state]\nstore = \"s3://b\"\n",
        )
        .expect("a file");
        let said = DevArgs { config: Some(path), data: Some("from-flag".into()), ..DevArgs::default() };
        let merged = dev(said).expect("valid settings");
        assert_eq!(merged.data, Some("from-flag".into()));
        assert_eq!(merged.ingress, Some(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(merged.api, None);
        assert_eq!(merged.state.store.as_deref(), Some("s3://b"));
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dev.toml");
        std::fs::write(&path, "ingres = \"127.0.0.1:9\"\n").expect("a file");
        let refusal = dev(DevArgs { config: Some(path), ..DevArgs::default() }).expect_err("a refusal");
        assert!(refusal.text().contains("ingres"), "{}", refusal.text());
    }
}
