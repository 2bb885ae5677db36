//! Two agents with one state store: what one of them had goes on with the other when it is lost, and what it says when
//! it comes back counts no more.
#![expect(clippy::print_stderr, reason = "figures of a run for people")]

mod crowd;
mod scene;

use std::process::Command;

use e2e::{Client, S3Server, eventually};

use crowd::{Crowd, balance, is_fenced, judge, transfer};
use scene::Scene;

/// Acknowledgements that each client gets before something happens, and after it.
const SOME: usize = 5;
const CLIENTS: usize = 8;

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.expect("kill can be started").success(), "the daemon is there");
}

#[test]
fn what_a_killed_host_had_goes_on_with_the_other_one() {
    let scene = Scene::with_directory();
    let (first, second) = (scene.start("first"), scene.start("second"));
    scene.deploy();
    assert!(!scene.owned_by("first").is_empty() && !scene.owned_by("second").is_empty());
    let crowd = Crowd::start(CLIENTS, [first.ingress.clone(), second.ingress.clone()]);
    eventually("all clients have begun", || crowd.has_gone_on(&[0; CLIENTS], SOME));

    first.kill();
    eventually("the second host has everything", || scene.all_owned_by("second"));
    let before = crowd.acknowledged();
    eventually("all clients go on", || crowd.has_gone_on(&before, SOME));

    // It comes back to a fleet that does without it, and forwards what it is asked.
    let first = scene.start("first");
    let heard = crowd.stop();
    judge(&heard, &second.ingress);
    let client = Client::new();
    eventually("it forwards", || balance(&client, &first.ingress, &Crowd::book(0)));
    judge(&heard, &first.ingress);
    scene.all_owned_by("second").expect("nothing moves back");

    let listed = scene.listed_state();
    let once: Vec<(String, String)> =
        (0..8).map(|index| (format!("ledger/books/{index}"), "second".to_owned())).collect();
    assert_eq!(listed, once, "each partition is listed once, with its owner");
}

#[test]
fn late_writes_of_a_host_that_was_stopped_are_refused() {
    let scene = Scene::with_directory();
    let (first, second) = (scene.start("first"), scene.start("second"));
    scene.deploy();
    let of_first = scene.owned_by("first");
    assert!(!of_first.is_empty());
    let crowd = Crowd::start(CLIENTS, [second.ingress.clone(), second.ingress.clone()]);
    eventually("all clients have begun", || crowd.has_gone_on(&[0; CLIENTS], SOME));

    signal(first.pid(), "STOP");
    // The system takes these for it; it will find them when it goes on.
    let late: Vec<_> = (0..4 * CLIENTS)
        .map(|number| {
            let (ingress, book) = (first.ingress.clone(), Crowd::book(number % CLIENTS));
            std::thread::spawn(move || transfer(&Client::new(), &ingress, &book, &format!("late-{number}")))
        })
        .collect();
    eventually("the second host has everything", || scene.all_owned_by("second"));
    let before = crowd.acknowledged();
    eventually("all clients go on", || crowd.has_gone_on(&before, SOME));
    signal(first.pid(), "CONT");

    let mut heard = crowd.stop();
    let mut refused = 0;
    for (number, answer) in late.into_iter().enumerate() {
        let Ok(answer) = answer.join().expect("it ended well") else { continue };
        refused += usize::from(is_fenced(&answer));
        if answer.status == 201 {
            // It was forwarded to the new owner, so it counts.
            heard[number % CLIENTS].acknowledged.insert(format!("late-{number}"), answer.body);
        }
    }
    assert!(refused > 0, "no late write came to the store");
    let counted = scene.fenced_commits(&first);
    assert!(counted > 0, "the host counts what was refused, {refused} at least");
    judge(&heard, &second.ingress);
    eventually("the first host has let go", || {
        balance(&Client::new(), &first.ingress, &Crowd::book(0)).map(drop)
    });
    judge(&heard, &first.ingress);
}

#[test]
fn what_a_living_host_may_no_longer_run_is_handed_over() {
    let scene = Scene::with_directory();
    let (first, second) = (scene.start("first"), scene.start("second"));
    scene.deploy();
    assert!(!scene.owned_by("first").is_empty());
    let crowd = Crowd::start(CLIENTS, [first.ingress.clone(), second.ingress.clone()]);
    eventually("all clients have begun", || crowd.has_gone_on(&[0; CLIENTS], SOME));
    scene.deploy_to("second");
    scene.all_owned_by("second").expect("deploy waits until all serve");
    let before = crowd.acknowledged();
    eventually("all clients go on", || crowd.has_gone_on(&before, SOME));
    let heard = crowd.stop();
    judge(&heard, &first.ingress);
    let refused: usize = heard.iter().map(|heard| heard.refused).sum();
    let longest = heard.iter().map(|heard| heard.longest).max().unwrap_or_default();
    eprintln!("{refused} commands were refused once, the longest took {longest:.0?}");
    let fenced: usize = heard.iter().map(|heard| heard.fenced).sum();
    assert_eq!(fenced, 0, "the new owner opened before the old one had let go");
    assert_eq!(scene.fenced_commits(&first), 0);
}

#[test]
fn what_a_killed_host_had_in_a_bucket_goes_on_with_the_other_one() {
    let server = S3Server::start();
    let scene = Scene::with_bucket(&server.endpoint);
    let (first, second) = (scene.start("first"), scene.start("second"));
    scene.deploy();
    let crowd = Crowd::start(2, [first.ingress.clone(), second.ingress.clone()]);
    eventually("all clients have begun", || crowd.has_gone_on(&[0; 2], 2));
    first.kill();
    eventually("the second host has everything", || scene.all_owned_by("second"));
    let before = crowd.acknowledged();
    eventually("all clients go on", || crowd.has_gone_on(&before, 2));
    judge(&crowd.stop(), &second.ingress);
}
