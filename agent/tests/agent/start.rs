//! What keeps an agent from starting.

use hvm_agent::{Agent, AgentConfig, ApiListen, StartError};
use hvm_types::{ByteSize, CpuMhz};

use crate::support::Host;

const NOBODY: &str = "http://127.0.0.1:9";

async fn refused(config: AgentConfig) -> StartError {
    match Agent::start(config).await {
        Ok(agent) => {
            agent.shutdown().await;
            panic!("the agent started")
        }
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let mut first = Host::started("a", NOBODY, None).await;
    let taken = first.agent().ingress();
    let second = Host::new("b", NOBODY, None);
    let mut config = second.config().clone();
    config.ingress = taken;
    let text = refused(config.clone()).await.to_string();
    assert!(text.contains(&taken.to_string()) && text.contains("in use"), "{text}");

    config.ingress = ([127, 0, 0, 1], 0).into();
    config.api = ApiListen::Own { address: taken, advertised: None };
    let text = refused(config).await.to_string();
    assert!(text.contains(&taken.to_string()) && text.contains("in use"), "{text}");
    first.stop().await;
}

#[tokio::test]
async fn an_offer_too_small_for_anything_is_refused_with_the_least_that_is_not() {
    let host = Host::new("a", NOBODY, None);
    for (mb, mhz, says) in [(63, 1_000, "--memory 64"), (64, 99, "--cpu 100"), (0, 0, "--memory 64")] {
        let mut config = host.config().clone();
        (config.memory, config.cpu) = (ByteSize::mib(mb), CpuMhz(mhz));
        let text = refused(config).await.to_string();
        assert!(text.contains(says), "{mb} MB, {mhz} MHz: {text}");
    }
    let mut config = host.config().clone();
    (config.memory, config.cpu) = (ByteSize::mib(64), CpuMhz(100));
    Agent::start(config).await.expect("the least is enough").shutdown().await;
}

#[tokio::test]
async fn a_directory_that_is_taken_is_named_with_its_holder() {
    let mut first = Host::started("a", NOBODY, None).await;
    let mut config = AgentConfig::new(first.id.clone(), first.data(), NOBODY);
    config.memory = first.config().memory;
    let text = refused(config.clone()).await.to_string();
    assert!(text.contains(&first.data().display().to_string()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    first.stop().await;
    Agent::start(config).await.expect("the directory is free again").shutdown().await;
}

#[tokio::test]
async fn an_address_that_others_could_not_reach_must_be_told() {
    let host = Host::new("a", NOBODY, None);
    let mut config = host.config().clone();
    config.ingress = ([0, 0, 0, 0], 0).into();
    assert!(matches!(refused(config.clone()).await, StartError::NotAdvertised { what: "ingress", .. }));
    config.advertised_ingress = Some("10.1.2.3:80".to_owned());
    let agent = Agent::start(config).await.expect("it starts");
    assert_eq!(agent.host().ingress, "10.1.2.3:80");
    agent.shutdown().await;
}

#[tokio::test]
async fn a_policy_that_is_wrong_and_a_scheduler_that_is_no_address_are_told_at_once() {
    let host = Host::new("a", NOBODY, None);
    let policy = host.dir.path().join("policy.toml");
    std::fs::write(&policy, "this is no policy").expect("written");
    let mut config = host.config().clone();
    config.trust = Some(policy.clone());
    let error = refused(config).await;
    assert!(error.to_string().contains(&policy.display().to_string()), "{error}");
    let mut config = host.config().clone();
    config.scheduler = "not an address".to_owned();
    assert!(matches!(refused(config).await, StartError::Scheduler(_)));
}
