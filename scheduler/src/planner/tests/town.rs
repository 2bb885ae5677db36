//! A town of hosts in which plans are applied at once and agents do what a test says.

use std::collections::{BTreeMap, BTreeSet};

use hvm_types::{
    Constraint, ConstraintOperator, CpuMhz, DeploymentName, DeploymentSpec, Digest, Driver, Epoch,
    Generation, GroupSpec, HostId, HostSpec, ImageRef, JobSpec, ReplicaReport, ReplicaState, Resources,
    TaskConfig, TaskSpec, UpdatePolicy,
};

use crate::documents::{
    Accepted, AssignmentDocument, DeploymentDocument, GroupKey, OwnershipDocument, StopOrder,
};
use crate::planner::{
    Finish, HostInput, Observation, Plan, PlanInput, PlanStep, StepAction, WaitReason, plan,
};

pub(super) const GROUP: &str = "main";

#[derive(Debug, Clone)]
pub(super) struct TownHost {
    pub(super) spec: HostSpec,
    pub(super) alive: bool,
    pub(super) document: AssignmentDocument,
    pub(super) version: u64,
    pub(super) observed: Option<Observation>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Town {
    pub(super) deployments: BTreeMap<DeploymentName, DeploymentDocument>,
    pub(super) ownership: BTreeMap<GroupKey, OwnershipDocument>,
    pub(super) hosts: Vec<TownHost>,
    revision: u64,
}

/// What a test's group asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) partitions: Option<u32>,
    pub(super) replicas: Option<u32>,
    /// 0 is to ask for none.
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) max_parallel: u32,
    pub(super) zones: Vec<&'static str>,
}

pub(super) fn partitions(count: u32) -> Ask {
    Ask { partitions: Some(count), replicas: None, cpu: 10, memory: 10, max_parallel: 2, zones: vec![] }
}

pub(super) fn replicas(count: u32) -> Ask {
    Ask { partitions: None, replicas: Some(count), ..partitions(1) }
}

pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a valid name")
}

pub(super) fn key(deployment: &str) -> GroupKey {
    name(&format!("{deployment}/{GROUP}"))
}

fn spec(deployment: &str, ask: &Ask) -> DeploymentSpec {
    let task = TaskSpec {
        name: name("main"),
        driver: Driver::AppPartition,
        config: TaskConfig { package: name("main") },
        env: hvm_types::Environment::default(),
        resources: Resources {
            cpu: (ask.cpu > 0).then_some(CpuMhz(ask.cpu)),
            memory: ask.memory,
            ..Resources::default()
        },
        grants: hvm_types::Grants::default(),
        instance: hvm_types::InstancePolicy::Reuse,
        metering: hvm_types::Metering::Time,
    };
    let zones = (!ask.zones.is_empty()).then(|| Constraint {
        attribute: "zone".to_owned(),
        operator: ConstraintOperator::In,
        value: ask.zones.iter().map(|zone| (*zone).to_owned()).collect(),
    });
    let group = GroupSpec {
        name: name(GROUP),
        partitions: ask.partitions,
        replicas: ask.replicas,
        tasks: vec![task],
        history: None,
        idempotency: None,
        update: UpdatePolicy { max_parallel: ask.max_parallel },
        constraints: zones.into_iter().collect(),
    };
    DeploymentSpec {
        deployment: name(deployment),
        image: ImageRef::File("x.aimg".to_owned()),
        jobs: vec![JobSpec { name: name("job"), groups: vec![group] }],
        routes: vec![],
    }
}

impl Town {
    /// `count` hosts `h0`, `h1`, … of 1,000 MHz and 1,000 MB in zones `a`, `b`, `a`, …
    pub(super) fn with_hosts(count: usize) -> Self {
        let mut town = Self::default();
        for _ in 0..count {
            town.add_host(1_000, 1_000);
        }
        town
    }

    pub(super) fn add_host(&mut self, cpu: u32, memory: u64) {
        self.add_host_with(cpu, memory, None);
    }

    /// One whose state is in a store, or on its own disk.
    pub(super) fn add_host_with(&mut self, cpu: u32, memory: u64, store: Option<&str>) {
        let number = self.hosts.len();
        let zone = if number.is_multiple_of(2) { "a" } else { "b" };
        let spec = HostSpec {
            id: name(&format!("h{number}")),
            ingress: format!("127.0.0.1:{}", 1_000 + number),
            api: format!("127.0.0.1:{}", 2_000 + number),
            cpu: CpuMhz(cpu),
            memory,
            attributes: [("zone".to_owned(), zone.to_owned())].into(),
            store: store.map(name),
        };
        self.hosts.push(TownHost {
            spec,
            alive: true,
            document: AssignmentDocument::default(),
            version: 0,
            observed: Some(Observation::default()),
        });
    }

    /// Accepts a deployment, as `admission` would.
    pub(super) fn deploy(&mut self, deployment: &str, ask: &Ask) -> Generation {
        let old = self.deployments.remove(&name::<DeploymentName>(deployment));
        let stopped = self.ownership.get(&key(deployment)).map(|document| document.generation);
        let newest = stopped.max(old.as_ref().map(|old| old.current.generation)).unwrap_or_default();
        let current = Accepted {
            generation: newest.next(),
            spec: spec(deployment, ask),
            image: Digest::of(b"image"),
            app: name("app"),
            version: semver::Version::new(1, 0, 0),
            state_schema: 1,
        };
        let earlier = old.map_or_else(Vec::new, |old| [vec![old.current], old.earlier].concat());
        let generation = current.generation;
        self.deployments.insert(name(deployment), DeploymentDocument { current, earlier, stop: None });
        generation
    }

    pub(super) fn stop(&mut self, deployment: &str, purge: bool) {
        let document = self.deployments.get_mut(&name::<DeploymentName>(deployment));
        document.expect("it is deployed").stop = Some(StopOrder { purge });
    }

    pub(super) fn input(&self) -> PlanInput<'_> {
        PlanInput {
            deployments: self.deployments.iter().collect(),
            ownership: self.ownership.iter().collect(),
            hosts: self.hosts.iter().map(TownHost::input).collect(),
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.input())
    }

    /// Writes a plan.
    pub(super) fn apply(&mut self, plan: &Plan) {
        for (key, document) in &plan.ownership {
            self.ownership.insert(key.clone(), document.clone());
        }
        for (id, document) in &plan.assignments {
            self.revision += 1;
            let host = self.hosts.iter_mut().find(|host| host.spec.id == *id).expect("a known host");
            host.document = document.clone();
            host.version = self.revision;
        }
        for stop in &plan.stops {
            if let Finish::Done { deployment } = stop {
                self.deployments.remove(deployment);
            }
        }
    }

    /// Plans and applies until nothing changes any more, which must be at once.
    pub(super) fn round(&mut self) -> Plan {
        let first = self.plan();
        self.apply(&first);
        let second = self.plan();
        assert!(second.is_settled(), "a plan of what a plan has made changes it again: {second:#?}");
        first
    }

    /// The host does what it is told, and says so.
    pub(super) fn obey(&mut self, number: usize) {
        let everything = |_: u32| true;
        self.obey_some(number, everything);
    }

    /// The host does what it is told for the replicas that `ready` names, and says so; of the others it
    /// repeats what it said.
    pub(super) fn obey_some(&mut self, number: usize, ready: impl Fn(u32) -> bool) {
        let host = &mut self.hosts[number];
        let before = host.observed.take().unwrap_or_default();
        let mut reports = Vec::new();
        for (key, replicas) in &host.document.groups {
            for (index, ownership) in replicas {
                if host.document.waits_for(key, *index).is_some() {
                    continue;
                }
                if ready(*index) {
                    reports.push(ReplicaReport {
                        replica: key.replica(*index),
                        generation: ownership.generation,
                        epoch: ownership.epoch,
                        image: Digest::of(b"image"),
                        state: ReplicaState::Ready,
                        next: None,
                    });
                } else {
                    reports.extend(before.replica(key, *index).cloned());
                }
            }
        }
        host.observed = Some(Observation::new(host.version, reports));
    }

    /// The host says that what it is told of a replica failed, and that it goes on as it was.
    pub(super) fn fail(&mut self, number: usize, index: u32, reason: &str) {
        let host = &mut self.hosts[number];
        let observed = host.observed.as_mut().expect("it has reported");
        for (key, replicas) in &host.document.groups {
            let report = observed.replicas.get_mut(key).and_then(|reports| reports.get_mut(&index));
            if let (Some(ownership), Some(report)) = (replicas.get(&index), report) {
                let state = ReplicaState::Failed { reason: reason.to_owned() };
                report.next = Some((ownership.generation, state));
            }
        }
    }

    pub(super) fn obey_all(&mut self) {
        for number in 0..self.hosts.len() {
            if self.hosts[number].alive {
                self.obey(number);
            }
        }
    }

    /// Plans and obeys until no step is left but keeping and waiting.
    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            let plan = self.round();
            self.obey_all();
            if plan.is_settled() && self.plan().is_settled() {
                return;
            }
        }
        panic!("the town never settles");
    }

    /// Who owns each replica of a deployment: host number, generation, epoch.
    pub(super) fn owners(&self, deployment: &str) -> BTreeMap<u32, (usize, Generation, Epoch)> {
        let mut owners = BTreeMap::new();
        for (number, host) in self.hosts.iter().enumerate() {
            for (index, ownership) in host.document.groups.get(&key(deployment)).into_iter().flatten() {
                let owner = (number, ownership.generation, ownership.epoch);
                let other = owners.insert(*index, owner);
                assert_eq!(other, None, "{deployment}/{index} has two owners");
            }
        }
        owners
    }

    pub(super) fn on_host(&self, deployment: &str, number: usize) -> BTreeSet<u32> {
        let owners = self.owners(deployment);
        owners.into_iter().filter(|(_, (host, ..))| *host == number).map(|(index, _)| index).collect()
    }
}

impl TownHost {
    fn input(&self) -> HostInput<'_> {
        HostInput {
            spec: &self.spec,
            alive: self.alive,
            assignments: &self.document,
            version: self.version,
            observed: self.observed.as_ref(),
        }
    }

    pub(super) fn id(&self) -> &HostId {
        &self.spec.id
    }
}

/// What each waiting replica waits for.
pub(super) fn waits(plan: &Plan) -> Vec<(u32, WaitReason)> {
    let wait = |step: &PlanStep| match &step.action {
        StepAction::Wait { reason, .. } => Some((step.index, reason.clone())),
        _ => None,
    };
    plan.steps.iter().filter_map(wait).collect()
}

/// How many steps of each kind a plan has: place, update, remove, wait.
pub(super) fn counts(plan: &Plan) -> (usize, usize, usize, usize) {
    let count = |kind: fn(&StepAction) -> bool| plan.steps.iter().filter(|step| kind(&step.action)).count();
    (
        count(|action| matches!(action, StepAction::Place { .. })),
        count(|action| matches!(action, StepAction::Update { .. })),
        count(|action| matches!(action, StepAction::Remove { .. })),
        count(|action| matches!(action, StepAction::Wait { .. })),
    )
}
