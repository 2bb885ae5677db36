//! From a request's head to the replica that answers it: the host document's routing table, compiled.
//! Pure: it opens no connection and knows nothing of the state of partitions beyond what it is told.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use hvm_types::{DeploymentName, GroupName, GroupPlacement, HostId, KeySource, ReplicaId, RoutingTable};

use super::key::{self, KeyError, partition_of};

/// A compiled routing table of one host.
#[derive(Debug, Default)]
pub(crate) struct Router {
    hosts: HashMap<String, Prefixes>,
    any_host: Prefixes,
    routes: Vec<Route>,
    groups: Vec<Group>,
}

/// What routing reads of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestHead<'r> {
    /// The host asked for, in lower case and without its port.
    pub(crate) host: Option<&'r str>,
    pub(crate) path: &'r str,
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
}

/// A replica and its name as answers carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) name: HeaderValue,
}

/// Which replicas of this host take a request best.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preference<R, N> {
    /// Goes round the copies.
    pub(crate) turn: usize,
    /// Whether a replica takes requests.
    pub(crate) is_ready: R,
    /// Whether it belongs to the worker that asks, so that nothing is handed over.
    pub(crate) is_near: N,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'t> {
    /// To a replica on this host.
    Here(&'t Replica),
    /// To the host that owns the partition, or that has a copy.
    Elsewhere { group: &'t str, replica: Option<&'t ReplicaId>, owner: &'t OtherHost },
}

/// Another host and where its ingress is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OtherHost {
    pub(crate) id: HostId,
    pub(crate) ingress: String,
}

/// A request that no replica can be found for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoutingError {
    #[error("no route matches {path}: `hvm status` lists the deployments, their files name the routes")]
    NoRoute { path: String },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{group} has no host yet: `hvm explain` says what it waits for")]
    Unplaced { group: String, replica: Option<ReplicaId> },
}

#[derive(Debug)]
struct Route {
    group: usize,
    key: Option<KeySource>,
}

/// Routes by prefix, without a closing `/`; the prefix of all paths is the empty one.
#[derive(Debug, Default)]
struct Prefixes {
    routes: HashMap<String, usize>,
    most_segments: usize,
}

#[derive(Debug)]
struct Group {
    /// `deployment/group`, for people.
    name: String,
    partitioned: bool,
    replicas: Vec<Replica>,
    owners: Vec<Owner>,
    /// Numbers of the replicas on this host.
    here: Vec<usize>,
    /// Numbers of the replicas on hosts whose ingress is known.
    elsewhere: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Owner {
    Here,
    Elsewhere(Arc<OtherHost>),
    Nobody,
}

impl Router {
    /// Compiles the table for the host `here`. Of two routes that take the same requests, the first holds.
    pub(crate) fn compile(table: &RoutingTable, here: &HostId) -> Self {
        let others: HashMap<&HostId, Arc<OtherHost>> = table
            .hosts
            .iter()
            .map(|(id, ingress)| (id, Arc::new(OtherHost { id: id.clone(), ingress: ingress.clone() })))
            .collect();
        let groups: Vec<Group> =
            table.groups.iter().map(|placement| Group::compile(placement, here, &others)).collect();
        let numbers: HashMap<(&DeploymentName, &GroupName), usize> = table
            .groups
            .iter()
            .enumerate()
            .map(|(number, placement)| ((&placement.deployment, &placement.group), number))
            .collect();
        let mut router = Self { groups, ..Self::default() };
        for target in &table.routes {
            // A route to a group that the table does not place leads nowhere.
            let Some(&group) = numbers.get(&(&target.deployment, &target.route.group)) else { continue };
            let number = router.routes.len();
            router.routes.push(Route { group, key: target.route.key.clone() });
            let prefixes = match &target.route.r#match.host {
                Some(host) => router.hosts.entry(host.to_ascii_lowercase()).or_default(),
                None => &mut router.any_host,
            };
            prefixes.insert(&target.route.r#match.prefix, number);
        }
        router
    }

    /// Finds the replica for a request. Of the copies of a stateless group, those here that are ready and near go
    /// first, then those here that are ready, then those elsewhere, then those here that are not ready.
    pub(crate) fn target(
        &self,
        head: RequestHead<'_>,
        prefers: Preference<impl Fn(&ReplicaId) -> bool, impl Fn(&ReplicaId) -> bool>,
    ) -> Result<Target<'_>, RoutingError> {
        let route = self
            .route(head)
            .ok_or_else(|| RoutingError::NoRoute { path: head.path.chars().take(200).collect() })?;
        let group = &self.groups[route.group];
        match &route.key {
            Some(source) if group.partitioned => {
                let key = key::extract(source, head.path, head.query, head.headers)?;
                group.owner(&key)
            }
            _ => group.copy(&prefers),
        }
    }

    fn route(&self, head: RequestHead<'_>) -> Option<&Route> {
        let named = head.host.and_then(|host| self.hosts.get(host));
        let number = named
            .and_then(|prefixes| prefixes.longest(head.path))
            .or_else(|| self.any_host.longest(head.path))?;
        Some(&self.routes[number])
    }
}

impl Prefixes {
    fn insert(&mut self, prefix: &str, route: usize) {
        let prefix = prefix.trim_end_matches('/');
        self.most_segments = self.most_segments.max(prefix.matches('/').count());
        self.routes.entry(prefix.to_owned()).or_insert(route);
    }

    /// The route with the longest prefix that ends where a segment of `path` ends. Looks at no more
    /// segments than the longest prefix has.
    fn longest(&self, path: &str) -> Option<usize> {
        let slashes = path.match_indices('/').skip(1).map(|(at, _)| at);
        let mut found = self.routes.get("").copied();
        for end in slashes.chain([path.len()]).take(self.most_segments) {
            if let Some(route) = self.routes.get(&path[..end]) {
                found = Some(*route);
            }
        }
        found
    }
}

impl Group {
    fn compile(placement: &GroupPlacement, here: &HostId, others: &HashMap<&HostId, Arc<OtherHost>>) -> Self {
        let replica = |index| {
            let (deployment, group) = (placement.deployment.clone(), placement.group.clone());
            let id = ReplicaId { deployment, group, index };
            let name = HeaderValue::try_from(id.to_string()).expect("names are made of labels and digits");
            Replica { id, name }
        };
        let replicas: Vec<Replica> = (0..placement.copies).map(replica).collect();
        let mut owners = vec![Owner::Nobody; replicas.len()];
        for owner in &placement.owners {
            let slot = usize::try_from(owner.index).ok().and_then(|index| owners.get_mut(index));
            let Some(slot) = slot else { continue };
            *slot = if owner.host == *here {
                Owner::Here
            } else {
                others.get(&owner.host).map_or(Owner::Nobody, |host| Owner::Elsewhere(Arc::clone(host)))
            };
        }
        let numbers = |wanted: fn(&Owner) -> bool| {
            owners.iter().enumerate().filter(|(_, owner)| wanted(owner)).map(|(number, _)| number).collect()
        };
        Self {
            name: format!("{}/{}", placement.deployment, placement.group),
            partitioned: placement.partitioned,
            here: numbers(|owner| matches!(owner, Owner::Here)),
            elsewhere: numbers(|owner| matches!(owner, Owner::Elsewhere(_))),
            replicas,
            owners,
        }
    }

    fn owner(&self, key: &[u8]) -> Result<Target<'_>, RoutingError> {
        let copies = u32::try_from(self.replicas.len()).expect("a group has at most 65,536 copies");
        if copies == 0 {
            return Err(RoutingError::Unplaced { group: self.name.clone(), replica: None });
        }
        let index = usize::try_from(partition_of(key, copies)).expect("an index fits");
        let replica = &self.replicas[index];
        match &self.owners[index] {
            Owner::Here => Ok(Target::Here(replica)),
            Owner::Elsewhere(owner) => {
                Ok(Target::Elsewhere { group: &self.name, replica: Some(&replica.id), owner })
            }
            Owner::Nobody => Err(RoutingError::Unplaced {
                group: replica.id.to_string(),
                replica: Some(replica.id.clone()),
            }),
        }
    }

    fn copy(
        &self,
        prefers: &Preference<impl Fn(&ReplicaId) -> bool, impl Fn(&ReplicaId) -> bool>,
    ) -> Result<Target<'_>, RoutingError> {
        let Preference { turn, is_ready, is_near } = prefers;
        let mut here = round(&self.here, *turn);
        let id = |number: usize| &self.replicas[number].id;
        // The copies of a group go round the workers, so a near one is among the next few.
        let near = here.clone().find(|number| is_near(id(*number)) && is_ready(id(*number)));
        if let Some(number) = near.or_else(|| here.clone().find(|number| is_ready(id(*number)))) {
            return Ok(Target::Here(&self.replicas[number]));
        }
        for number in round(&self.elsewhere, *turn) {
            if let Owner::Elsewhere(owner) = &self.owners[number] {
                return Ok(Target::Elsewhere { group: &self.name, replica: None, owner });
            }
        }
        match here.next() {
            Some(number) => Ok(Target::Here(&self.replicas[number])),
            None => Err(RoutingError::Unplaced { group: self.name.clone(), replica: None }),
        }
    }
}

/// All of `numbers`, beginning with another one each turn.
fn round(numbers: &[usize], turn: usize) -> impl Iterator<Item = usize> + Clone {
    let start = turn % numbers.len().max(1);
    numbers[start..].iter().chain(&numbers[..start]).copied()
}

#[cfg(test)]
mod tests {
    use hvm_types::{Epoch, PartitionOwner, RouteMatch, RouteSpec, RouteTarget};

    use super::*;

    fn host(name: &str) -> HostId {
        name.parse().expect("a host name")
    }

    fn route(host: Option<&str>, prefix: &str, group: &str, key: Option<KeySource>) -> RouteTarget {
        RouteTarget {
            deployment: "shop".parse().expect("a name"),
            route: RouteSpec {
                r#match: RouteMatch { host: host.map(str::to_owned), prefix: prefix.to_owned() },
                group: group.parse().expect("a name"),
                key,
            },
        }
    }

    fn placement(group: &str, partitioned: bool, copies: u32, owners: &[(u32, &str)]) -> GroupPlacement {
        let owners = owners
            .iter()
            .map(|(index, name)| PartitionOwner { index: *index, host: host(name), epoch: Epoch(1) })
            .collect();
        GroupPlacement {
            deployment: "shop".parse().expect("a name"),
            group: group.parse().expect("a name"),
            partitioned,
            copies,
            owners,
        }
    }

    fn table(routes: Vec<RouteTarget>, groups: Vec<GroupPlacement>) -> RoutingTable {
        let hosts = [("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")];
        let hosts = hosts.into_iter().map(|(id, address)| (host(id), address.to_owned())).collect();
        RoutingTable { hosts, routes, groups }
    }

    fn prefers<R, N>(turn: usize, is_ready: R, is_near: N) -> Preference<R, N>
    where
        R: Fn(&ReplicaId) -> bool,
        N: Fn(&ReplicaId) -> bool,
    {
        Preference { turn, is_ready, is_near }
    }

    /// The replica or host that answers, as text; all replicas here are ready.
    fn answers(router: &Router, asked: Option<&str>, path: &str, turn: usize) -> String {
        let headers = HeaderMap::new();
        let head = RequestHead { host: asked, path, query: None, headers: &headers };
        match router.target(head, prefers(turn, |_| true, |_| true)) {
            Ok(Target::Here(replica)) => replica.id.to_string(),
            Ok(Target::Elsewhere { owner, .. }) => format!("on {} at {}", owner.id, owner.ingress),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn the_route_with_a_host_goes_first_and_then_the_longest_prefix() {
        let groups = ["all", "long", "named"].map(|name| placement(name, false, 1, &[(0, "a")]));
        let routes = vec![
            route(None, "/", "all", None),
            route(None, "/a/b/", "long", None),
            route(Some("Shop.Example"), "/a", "named", None),
        ];
        let router = Router::compile(&table(routes, groups.to_vec()), &host("a"));
        let asked = |name, path| answers(&router, name, path, 0);
        assert_eq!(asked(None, "/"), "shop/all/0");
        assert_eq!(asked(None, "/a"), "shop/all/0");
        assert_eq!(asked(None, "/a/b"), "shop/long/0");
        assert_eq!(asked(None, "/a/b/c/d/e"), "shop/long/0");
        assert_eq!(asked(None, "/a/bc"), "shop/all/0", "a prefix ends where a segment ends");
        assert_eq!(asked(Some("shop.example"), "/a/b"), "shop/named/0", "the host decides before the prefix");
        assert_eq!(asked(Some("shop.example"), "/other"), "shop/all/0");
        assert_eq!(asked(Some("other.example"), "/a/b"), "shop/long/0");
    }

    #[test]
    fn a_path_that_no_route_takes_is_said_so() {
        let router = Router::compile(
            &table(vec![route(None, "/a", "all", None)], vec![placement("all", false, 1, &[(0, "a")])]),
            &host("a"),
        );
        assert!(answers(&router, None, "/ab", 0).contains("no route matches /ab"));
        assert!(answers(&Router::default(), None, "/", 0).contains("no route matches /"));
    }

    #[test]
    fn a_key_leads_to_the_owner_of_its_partition() {
        let segment = Some(KeySource::PathSegment(2));
        let here = partition_of(b"42", 4);
        let owners: Vec<(u32, &str)> = (0..4).map(|n| (n, if n == here { "a" } else { "b" })).collect();
        let routing =
            table(vec![route(None, "/k", "parts", segment)], vec![placement("parts", true, 4, &owners)]);
        let (on_a, on_b) = (Router::compile(&routing, &host("a")), Router::compile(&routing, &host("b")));
        assert_eq!(answers(&on_a, None, "/k/42/x", 0), format!("shop/parts/{here}"));
        assert_eq!(answers(&on_b, None, "/k/42/x", 0), "on a at 10.0.0.1:80");
        assert!(answers(&on_a, None, "/k", 0).contains("segment 2 of the path"));
    }

    #[test]
    fn a_partition_without_owner_or_on_an_unknown_host_is_unplaced() {
        let routes = vec![route(None, "/k", "parts", Some(KeySource::PathSegment(2)))];
        for owners in [&[][..], &[(0, "gone")], &[(7, "a")]] {
            let routing = table(routes.clone(), vec![placement("parts", true, 1, owners)]);
            let router = Router::compile(&routing, &host("a"));
            assert!(answers(&router, None, "/k/1", 0).contains("shop/parts/0 has no host yet"), "{owners:?}");
        }
    }

    #[test]
    fn copies_here_take_turns_and_those_elsewhere_help_when_none_is_ready() {
        let owners = [(0, "a"), (1, "b"), (2, "a")];
        let routing = table(vec![route(None, "/", "web", None)], vec![placement("web", false, 3, &owners)]);
        let router = Router::compile(&routing, &host("a"));
        let turns: Vec<String> = (0..4).map(|turn| answers(&router, None, "/", turn)).collect();
        assert_eq!(turns, ["shop/web/0", "shop/web/2", "shop/web/0", "shop/web/2"]);

        let headers = HeaderMap::new();
        let head = RequestHead { host: None, path: "/", query: None, headers: &headers };
        let number_2 = |replica: &ReplicaId| replica.index == 2;
        let only_2 = router.target(head, prefers(0, number_2, |_| true)).expect("a target");
        assert!(matches!(only_2, Target::Here(replica) if replica.id.index == 2));
        let near_2 = router.target(head, prefers(0, |_| true, number_2)).expect("a target");
        assert!(matches!(near_2, Target::Here(replica) if replica.id.index == 2));
        let none_near = router.target(head, prefers(0, |_| true, |_| false)).expect("a target");
        assert!(matches!(none_near, Target::Here(replica) if replica.id.index == 0));
        let none = router.target(head, prefers(0, |_| false, |_| true)).expect("a target");
        assert!(matches!(none, Target::Elsewhere { owner, .. } if owner.id == host("b")));
    }

    #[test]
    fn of_two_equal_routes_the_first_holds() {
        let groups = ["one", "two"].map(|name| placement(name, false, 1, &[(0, "a")]));
        let routes = vec![route(None, "/x", "one", None), route(None, "/x/", "two", None)];
        let router = Router::compile(&table(routes, groups.to_vec()), &host("a"));
        assert_eq!(answers(&router, None, "/x", 0), "shop/one/0");
    }
}
