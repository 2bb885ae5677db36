//! Two hosts: any ingress reaches every partition.

use hvm_agent::partition_of;

use crate::support::{Host, Image, Keys, Scheduler, assignments, document};

/// Two hosts with four partitions, the even ones on `a`, the odd ones on `b`.
async fn two_hosts(keys: &Keys) -> (Scheduler, Host, Host) {
    let scheduler = Scheduler::start().await;
    let image = Image::probe("1.0.0", keys);
    scheduler.put_image(&image);
    let a = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let b = Host::started("b", &scheduler.url(), Some(keys.policy())).await;
    let hosts = [a.entry(), b.entry()];
    for (host, indexes) in [("a", [0, 2]), ("b", [1, 3])] {
        scheduler.put_document(host, document(1, assignments(indexes, 1, image.manifest()), 4, &hosts));
    }
    for host in ["a", "b"] {
        scheduler.reported(host, |reported| reported.all_ready(2, 1)).await;
    }
    (scheduler, a, b)
}

/// A key of a partition with an odd number: it is on `b`.
fn key_on_b() -> String {
    let found = (0..).map(|n| format!("key-{n}")).find(|key| partition_of(key.as_bytes(), 4) % 2 == 1);
    found.expect("some key")
}

#[tokio::test]
async fn any_ingress_leads_to_the_owner() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    for number in 0..16 {
        let key = format!("key-{number}");
        let set = a.client().post(&format!("/kv/set?k={key}"), &key).await;
        assert_eq!(set.status, 204, "{}", set.text());
        let owner = format!("shop/parts/{}", partition_of(key.as_bytes(), 4));
        assert_eq!(set.header("hvm-partition"), Some(owner.as_str()));
        for client in [a.client(), b.client()] {
            assert_eq!(client.get(&format!("/kv/get?k={key}")).await.text(), key);
        }
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_was_written_through_one_host_is_read_through_any() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let (incr, get) = (format!("/kv/incr?k={}", key_on_b()), format!("/kv/get?k={}", key_on_b()));
    for (round, client) in (1..).zip([a.client(), b.client(), a.client()]) {
        let number = format!("{round}");
        // The one asks for the record before or while the other makes it.
        let asked = async {
            let other = if round % 2 == 0 { a.client() } else { b.client() };
            other.send(http::Method::GET, &get, &[("hvm-at-least", &number)], "").await
        };
        let (read, made) = tokio::join!(asked, client.post(&incr, ""));
        assert_eq!(made.header("hvm-sequence"), Some(number.as_str()));
        assert_eq!((read.header("hvm-sequence"), read.text()), (Some(number.as_str()), number.as_str()));
    }
    for client in [a.client(), b.client()] {
        let answer = client.send(http::Method::GET, &get, &[("hvm-at-least", "last")], "").await;
        assert_eq!((answer.status.as_u16(), answer.error("kind").as_str()), (400, "at-least-invalid"));
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_request_is_forwarded_at_most_once() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let path = format!("/kv/get?k={}", key_on_b());
    let answer = a.client().send(http::Method::GET, &path, &[("hvm-hop", "x")], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.error("kind"), "forwarded-twice");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_is_passed_on_before_the_document_came_waits_for_it() {
    let keys = Keys::new();
    let (scheduler, mut a, mut b) = two_hosts(&keys).await;
    let path = format!("/kv/incr?k={}", key_on_b());
    let client = a.client();
    let early = client.send(http::Method::POST, &path, &[("hvm-hop", "b")], "");
    let change = async {
        let image = Image::probe("1.0.0", &keys);
        let everything = assignments(0..4, 1, image.manifest());
        scheduler.put_document("a", document(2, everything, 4, &[a.entry()]));
    };
    let (answer, ()) = tokio::join!(early, change);
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "1"));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_owner_that_is_gone_is_named_and_the_others_go_on() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    b.stop().await;
    let answer = a.client().get(&format!("/kv/get?k={}", key_on_b())).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.error("kind"), "owner-unreachable");
    assert!(answer.error("message").contains("host b"), "{}", answer.text());
    let key = (0..).map(|n| format!("key-{n}")).find(|key| partition_of(key.as_bytes(), 4).is_multiple_of(2));
    let answer = a.client().post(&format!("/kv/incr?k={}", key.expect("some key")), "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "1"));
    a.stop().await;
}

#[tokio::test]
async fn an_owner_that_falls_silent_is_given_up() {
    let keys = Keys::new();
    let scheduler = Scheduler::start().await;
    let image = Image::probe("1.0.0", &keys);
    scheduler.put_image(&image);
    // Its connections are completed by the kernel, as those of a stopped process are.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let silent_at = silent.local_addr().expect("it is bound").to_string();
    let mut a = Host::started("a", &scheduler.url(), Some(keys.policy())).await;
    let hosts = [a.entry(), ("b".parse().expect("a host id"), silent_at)];
    scheduler.put_document("a", document(1, assignments([0], 1, image.manifest()), 2, &hosts));
    scheduler.reported("a", |reported| reported.all_ready(1, 1)).await;
    let key = (0..).map(|n| format!("key-{n}")).find(|key| partition_of(key.as_bytes(), 2) == 1);
    let answer = a.client().post(&format!("/kv/set?k={}", key.expect("some key")), "x").await;
    assert_eq!((answer.status.as_u16(), answer.error("kind").as_str()), (502, "owner-lost"));
    assert!(answer.error("message").contains("not known"), "{}", answer.text());
    a.stop().await;
    drop(silent);
}

#[tokio::test]
async fn an_owner_that_takes_its_time_is_waited_for() {
    let keys = Keys::new();
    let (_scheduler, mut a, mut b) = two_hosts(&keys).await;
    let answer = a.client().post(&format!("/sleep?ms=4000&k={}", key_on_b()), "").await;
    assert_eq!(answer.status.as_u16(), 204, "{}", answer.text());
    a.stop().await;
    b.stop().await;
}
