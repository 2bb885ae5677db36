//! Routing: the route that the documentation promises, the same partition for every spelling of one key, and
//! nothing but an answer or a refusal for any request.
//!
//! Routing is private to the agent, so its files are compiled into this crate; see `state`.
//!
//! The head of the input makes the routing table; its rest is the request: the target, then header lines.

use arbitrary::{Result, Unstructured};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use hvm_types::{
    Epoch, GroupPlacement, HostId, KeySource, PartitionOwner, ReplicaId, RouteMatch, RouteSpec, RouteTarget,
    RoutingTable,
};

use self::key::{MAX_KEY_BYTES, extract, partition_of};
use self::routes::{Preference, RequestHead, Router, RoutingError, Target};

#[allow(dead_code, unreachable_pub, reason = "the agent uses the rest")]
#[path = "../../../agent/src/ingress/key.rs"]
mod key;
#[allow(dead_code, unreachable_pub, reason = "the agent uses the rest")]
#[path = "../../../agent/src/ingress/routing.rs"]
mod routes;

const HOSTS: [Option<&str>; 3] = [None, Some("a.example"), Some("B.example")];
const SEGMENTS: [&str; 6] = ["a", "b", "ab", "a%2Fb", "", "%61"];
const NAMES: [&str; 3] = ["key", "k k", "ä"];
const HEADERS: [&str; 2] = ["x-key", "Cookie"];

pub(crate) fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(table) = table(&mut input) else { return };
    let Ok(asked) = input.choose(&[None, Some("a.example"), Some("b.example"), Some("c.example")]) else {
        return;
    };
    let asked = *asked;
    let Some((uri, headers)) = request(input.take_rest()) else { return };
    let head = RequestHead { host: asked, path: uri.path(), query: uri.query(), headers: &headers };

    let here = host(0);
    let router = Router::compile(&table, &here);
    let prefers = Preference { turn: 0, is_ready: |_: &ReplicaId| true, is_near: |_: &ReplicaId| false };
    let found = router.target(head, prefers);
    let Some(route) = promised(&table, head) else {
        assert!(matches!(found, Err(RoutingError::NoRoute { .. })), "{found:?}");
        return;
    };
    let group = table.groups.iter().find(|group| group.group == route.group).expect("each is placed");
    let Some(source) = route.key.as_ref().filter(|_| group.partitioned) else {
        assert!(!matches!(found, Err(RoutingError::Key(_) | RoutingError::NoRoute { .. })), "{found:?}");
        return;
    };
    match extract(source, head.path, head.query, head.headers) {
        Ok(key) => {
            assert!((1..=MAX_KEY_BYTES).contains(&key.len()), "a key of {} bytes", key.len());
            let index = partition_of(&key, group.copies);
            leads_to(&found, index, group, &here);
            spelled_otherwise(source, &key);
        }
        Err(error) => assert_eq!(found.err(), Some(RoutingError::Key(error))),
    }
}

/// The target is the owner of this partition.
fn leads_to(
    found: &std::result::Result<Target<'_>, RoutingError>,
    index: u32,
    group: &GroupPlacement,
    here: &HostId,
) {
    let owner = group.owners.iter().rev().find(|owner| owner.index == index).map(|owner| &owner.host);
    match found {
        Ok(Target::Here(replica)) => {
            assert_eq!((replica.id.index, Some(here)), (index, owner));
        }
        Ok(Target::Elsewhere { replica, owner: other, .. }) => {
            assert_eq!(replica.map(|replica| replica.index), Some(index));
            assert_eq!(Some(&other.id), owner);
        }
        Err(RoutingError::Unplaced { .. }) => assert_eq!(owner, None),
        other => panic!("partition {index} of {owner:?} was routed to {other:?}"),
    }
}

/// A client may percent-encode what it likes: the key stays the same.
fn spelled_otherwise(source: &KeySource, key: &[u8]) {
    let encoded = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let mut headers = HeaderMap::new();
    let (mut path, mut query) = ("/".to_owned(), None);
    match source {
        KeySource::PathSegment(number) => {
            path = "/x".repeat(usize::try_from(*number).expect("a small number") - 1) + "/" + &encoded(key);
        }
        KeySource::Query(name) => {
            query = Some(format!("a=1&{}={}&b", encoded(name.as_bytes()), encoded(key)))
        }
        KeySource::Header(name) => {
            let value = HeaderValue::from_bytes(key).expect("it came out of a header");
            headers.insert(HeaderName::try_from(name.as_str()).expect("a header's name"), value);
        }
    }
    let again = extract(source, &path, query.as_deref(), &headers).expect("the same key, spelled otherwise");
    assert_eq!(again, key);
}

/// The route that the documentation promises: one with a host first, then the longest prefix of whole
/// segments, then the first in the table.
fn promised<'t>(table: &'t RoutingTable, head: RequestHead<'_>) -> Option<&'t RouteSpec> {
    let prefix = |route: &RouteSpec| route.r#match.prefix.trim_end_matches('/').to_owned();
    let takes = |route: &RouteSpec| {
        let rest = head.path.strip_prefix(prefix(route).as_str());
        let host = route.r#match.host.as_ref().map(|host| host.to_ascii_lowercase());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix(route).is_empty())
            && (host.is_none() || host.as_deref() == head.host)
    };
    let rank = |route: &RouteSpec| (route.r#match.host.is_some(), prefix(route).len());
    let routes = table.routes.iter().map(|target| &target.route).filter(|route| takes(route));
    // Of equals, `max_by_key` takes the last.
    routes.rev().max_by_key(|route| rank(route))
}

fn host(number: usize) -> HostId {
    format!("host-{number}").parse().expect("a host's name")
}

fn table(input: &mut Unstructured<'_>) -> Result<RoutingTable> {
    let deployment: hvm_types::DeploymentName = "app".parse().expect("a name");
    let mut table = RoutingTable::default();
    for number in 0..2 {
        table.hosts.insert(host(number), format!("10.0.0.{number}:80"));
    }
    for number in 0..input.int_in_range(1..=3)? {
        let copies = input.int_in_range(1..=5)?;
        let mut owners = Vec::new();
        for index in 0..copies {
            // The third host's ingress is not known, so its partitions count as unplaced.
            if let place @ 0..=1 = input.int_in_range(0..=2)? {
                owners.push(PartitionOwner { index, host: host(place), epoch: Epoch(1) });
            }
        }
        table.groups.push(GroupPlacement {
            deployment: deployment.clone(),
            group: format!("group-{number}").parse().expect("a name"),
            partitioned: input.arbitrary()?,
            copies,
            owners,
        });
    }
    for _ in 0..input.int_in_range(1..=5)? {
        let group = input.choose(&table.groups)?.group.clone();
        let mut prefix = String::new();
        for _ in 0..input.int_in_range(0..=3)? {
            prefix = prefix + "/" + input.choose(&SEGMENTS)?;
        }
        if prefix.is_empty() || input.arbitrary()? {
            prefix.push('/');
        }
        let key = match input.int_in_range(0..=5)? {
            number @ 1..=3 => Some(KeySource::PathSegment(number)),
            4 => Some(KeySource::Query((*input.choose(&NAMES)?).to_owned())),
            5 => Some(KeySource::Header((*input.choose(&HEADERS)?).to_owned())),
            _ => None,
        };
        let host = input.choose(&HOSTS)?.map(str::to_owned);
        let route = RouteSpec { r#match: RouteMatch { host, prefix }, group, key };
        table.routes.push(RouteTarget { deployment: deployment.clone(), route });
    }
    Ok(table)
}

fn request(bytes: &[u8]) -> Option<(Uri, HeaderMap)> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let uri = Uri::try_from(lines.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?);
    }
    Some((uri, headers))
}
