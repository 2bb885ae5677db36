//! The tree to a spec: which fields there are, what each holds, what stands where one is left out.

use crate::{
    ByteSize, Constraint, ConstraintOperator, CpuMhz, DeploymentName, DeploymentSpec, Driver, Environment,
    Grants, GroupName, GroupSpec, HistorySpec, IdempotencySpec, ImageRef, InstancePolicy, JobName, JobSpec,
    KeySource, Metering, PackageName, Period, Resources, RouteMatch, RouteSpec, TaskConfig, TaskName,
    TaskSpec, UpdatePolicy,
};

use super::error::shown;
use super::fields::{Fields, Reader, Written};
use super::node::{Node, Value};
use super::suggest;

/// A name for what has no readable one; never handed out.
const PLACEHOLDER: &str = "placeholder";
/// Drivers of other versions of this program.
const OTHER_DRIVERS: [&str; 4] = ["exec", "container", "java", "vm"];

pub(super) fn deployment(reader: &Reader, root: &Node) -> DeploymentSpec {
    let mut fields = Fields::of(reader, root, "");
    let spec = DeploymentSpec {
        deployment: fields.required::<DeploymentName>("deployment", PLACEHOLDER),
        image: fields.required::<ImageRef>("image", "placeholder.aimg"),
        jobs: items(&mut fields, "jobs", "list at least one job, with its `name` and `groups`", job),
        routes: fields.list("routes").iter().map(|(path, node)| route(reader, node, path)).collect(),
    };
    fields.finish(&[]);
    spec
}

/// A list that must be there; that it must not be empty is a rule.
fn items<T>(
    fields: &mut Fields<'_, '_>,
    field: &'static str,
    advice: &str,
    read: impl Fn(&Reader, &Node, &str) -> T,
) -> Vec<T> {
    let Some(node) = fields.required_node(field, advice) else { return Vec::new() };
    let reader = fields.reader;
    let items = reader.list(node, &fields.path_of(field));
    items.iter().map(|(path, node)| read(reader, node, path)).collect()
}

fn job(reader: &Reader, node: &Node, path: &str) -> JobSpec {
    let mut fields = Fields::of(reader, node, path);
    let spec = JobSpec {
        name: fields.required::<JobName>("name", PLACEHOLDER),
        groups: items(&mut fields, "groups", "list at least one group, with its `name` and `tasks`", group),
    };
    fields.finish(&[]);
    spec
}

fn group(reader: &Reader, node: &Node, path: &str) -> GroupSpec {
    let mut fields = Fields::of(reader, node, path);
    let spec = GroupSpec {
        name: fields.required::<GroupName>("name", PLACEHOLDER),
        partitions: fields.optional_number("partitions", ""),
        replicas: fields.optional_number("replicas", ""),
        tasks: items(&mut fields, "tasks", "list one task, with its `name`, `driver` and `config`", task),
        history: fields.take("history").map(|node| history(reader, node, &fields.path_of("history"))),
        idempotency: fields
            .take("idempotency")
            .map(|node| idempotency(reader, node, &fields.path_of("idempotency"))),
        update: fields
            .take("update")
            .map(|node| update(reader, node, &fields.path_of("update")))
            .unwrap_or_default(),
        constraints: fields
            .list("constraints")
            .iter()
            .map(|(path, node)| constraint(reader, node, path))
            .collect(),
    };
    fields.finish(&[]);
    spec
}

/// A number of records, an age, or a mapping of several limits.
fn history(reader: &Reader, node: &Node, path: &str) -> HistorySpec {
    match &node.value {
        Value::Whole(_) => {
            HistorySpec { records: reader.number(node, path, " of records"), ..HistorySpec::default() }
        }
        Value::Map(_) => {
            let mut fields = Fields::of(reader, node, path);
            let spec = HistorySpec {
                records: fields.optional_number("records", " of records"),
                age: fields.optional("age"),
                bytes: fields.optional("bytes"),
            };
            fields.finish(&[]);
            spec
        }
        _ => HistorySpec { age: reader.written(node, path), ..HistorySpec::default() },
    }
}

fn idempotency(reader: &Reader, node: &Node, path: &str) -> IdempotencySpec {
    let mut fields = Fields::of(reader, node, path);
    let spec = IdempotencySpec {
        answers: fields.optional_number("answers", " of answers"),
        age: fields.optional("age"),
        bytes: fields.optional("bytes"),
    };
    fields.finish(&[]);
    spec
}

fn task(reader: &Reader, node: &Node, path: &str) -> TaskSpec {
    let mut fields = Fields::of(reader, node, path);
    let spec = TaskSpec {
        name: fields.required::<TaskName>("name", PLACEHOLDER),
        driver: driver(&mut fields),
        config: config(&mut fields),
        env: fields.take("env").map(|node| env(reader, node, &fields.path_of("env"))).unwrap_or_default(),
        resources: fields
            .take("resources")
            .map(|node| resources(reader, node, &fields.path_of("resources")))
            .unwrap_or_default(),
        grants: fields
            .take("grants")
            .map(|node| grants(reader, node, &fields.path_of("grants")))
            .unwrap_or_default(),
        instance: choice(
            &mut fields,
            "instance",
            &[("reuse", InstancePolicy::Reuse), ("per-request", InstancePolicy::PerRequest)],
        )
        .unwrap_or_default(),
        metering: choice(
            &mut fields,
            "metering",
            &[("time", Metering::Time), ("deterministic", Metering::Deterministic)],
        )
        .unwrap_or_default(),
    };
    fields.finish(&[]);
    spec
}

fn driver(fields: &mut Fields<'_, '_>) -> Driver {
    let advice = "write `app-partition`";
    let Some(node) = fields.required_node("driver", advice) else { return Driver::AppPartition };
    let path = fields.path_of("driver");
    if let Some(name) = fields.reader.text(node, &path)
        && name != "app-partition"
    {
        let problem = if OTHER_DRIVERS.contains(&name) {
            format!("driver {} is not offered by this version", shown(name))
        } else {
            format!("{} is no driver", shown(name))
        };
        fields.reader.refuse(node.at, &path, problem, advice);
    }
    Driver::AppPartition
}

fn config(fields: &mut Fields<'_, '_>) -> TaskConfig {
    let node = fields.required_node("config", "write `config: { package: NAME }`");
    let package = node.map(|node| {
        let mut config = Fields::of(fields.reader, node, &fields.path_of("config"));
        let package = config.required::<PackageName>("package", PLACEHOLDER);
        config.finish(&[]);
        package
    });
    TaskConfig { package: package.unwrap_or_else(|| PLACEHOLDER.parse().expect("placeholders are valid")) }
}

fn env(reader: &Reader, node: &Node, path: &str) -> Environment {
    let entries = reader.entries(node, path).iter();
    entries
        .filter_map(|(key, node)| {
            let value = reader.text(node, &format!("{path}.{}", key.name))?;
            Some((key.name.clone(), value.to_owned()))
        })
        .collect()
}

fn resources(reader: &Reader, node: &Node, path: &str) -> Resources {
    let mut fields = Fields::of(reader, node, path);
    let default = Resources::default();
    let spec = Resources {
        cpu: fields.optional_number("cpu", " of MHz").map(CpuMhz),
        memory: fields.optional_number("memory", " of MB").unwrap_or(default.memory),
        deadline: fields.optional("deadline").unwrap_or(default.deadline),
        migration_deadline: fields.optional("migration_deadline").unwrap_or(default.migration_deadline),
        mailbox: fields.optional_number("mailbox", " of requests").unwrap_or(default.mailbox),
        request_body: fields.optional("request_body").unwrap_or(default.request_body),
        response_body: fields.optional("response_body").unwrap_or(default.response_body),
        storage: fields.optional("storage").unwrap_or(default.storage),
    };
    fields.finish(&[]);
    spec
}

fn grants(reader: &Reader, node: &Node, path: &str) -> Grants {
    let mut fields = Fields::of(reader, node, path);
    let spec = Grants {
        keyvalue: fields.texts("keyvalue"),
        config: fields.flag("config"),
        logging: fields.flag("logging"),
        http: fields.texts("http"),
        http_in_commands: fields.flag("http_in_commands"),
    };
    fields.finish(&[]);
    spec
}

fn update(reader: &Reader, node: &Node, path: &str) -> UpdatePolicy {
    let mut fields = Fields::of(reader, node, path);
    let default = UpdatePolicy::default();
    let spec = UpdatePolicy {
        max_parallel: fields.optional_number("max_parallel", " of copies").unwrap_or(default.max_parallel),
    };
    fields.finish(&["canary", "healthy_deadline", "auto_revert"]);
    spec
}

fn constraint(reader: &Reader, node: &Node, path: &str) -> Constraint {
    let mut fields = Fields::of(reader, node, path);
    let operators = [("in", ConstraintOperator::In), ("not-in", ConstraintOperator::NotIn)];
    let attribute = fields.required_text("attribute", "name an attribute of the hosts, such as `zone`");
    let operator = match fields.required_node("operator", "write `in` or `not-in`") {
        Some(_) => choice(&mut fields, "operator", &operators),
        None => None,
    };
    let _ = fields.required_node("value", "list the values, such as `[a, b]`");
    let spec = Constraint {
        attribute: attribute.unwrap_or_else(|| PLACEHOLDER.to_owned()),
        operator: operator.unwrap_or(ConstraintOperator::In),
        value: fields.texts("value"),
    };
    fields.finish(&[]);
    spec
}

/// One of a few words.
fn choice<T: Copy>(fields: &mut Fields<'_, '_>, field: &'static str, choices: &[(&str, T)]) -> Option<T> {
    let node = fields.take(field)?;
    let path = fields.path_of(field);
    let given = fields.reader.text(node, &path)?;
    let found = choices.iter().find(|(word, _)| *word == given);
    if found.is_none() {
        let words = choices.iter().map(|(word, _)| *word);
        let advice = match suggest::nearest(given, words.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of: {}", words.collect::<Vec<_>>().join(", ")),
        };
        fields.reader.refuse(node.at, &path, format!("{} is none of the choices", shown(given)), advice);
    }
    found.map(|(_, value)| *value)
}

fn route(reader: &Reader, node: &Node, path: &str) -> RouteSpec {
    let mut fields = Fields::of(reader, node, path);
    let matching = fields.required_node("match", "write `match: { prefix: /path }`").map(|node| {
        let mut fields = Fields::of(reader, node, &fields.path_of("match"));
        let host = fields.optional_text("host");
        let prefix = fields.required_text("prefix", "write the path's beginning, such as `/accounts`");
        fields.finish(&[]);
        RouteMatch { host, prefix: prefix.unwrap_or_else(|| "/".to_owned()) }
    });
    let spec = RouteSpec {
        r#match: matching.unwrap_or_else(|| RouteMatch { host: None, prefix: "/".to_owned() }),
        group: fields.required::<GroupName>("group", PLACEHOLDER),
        key: fields.take("key").and_then(|node| key(reader, node, &fields.path_of("key"))),
    };
    fields.finish(&[]);
    spec
}

fn key(reader: &Reader, node: &Node, path: &str) -> Option<KeySource> {
    let advice = "write one of `path_segment: 2`, `header: x-account` and `query: account`";
    let mut fields = Fields::of(reader, node, path);
    let segment = fields.optional_number("path_segment", ", counted from 1").map(KeySource::PathSegment);
    let header = fields.optional_text("header").map(KeySource::Header);
    let query = fields.optional_text("query").map(KeySource::Query);
    fields.finish(&[]);
    let mut given: Vec<KeySource> = [segment, header, query].into_iter().flatten().collect();
    let map = matches!(node.value, Value::Map(_));
    if map && given.len() != 1 {
        reader.refuse(node.at, path, "a key is taken from exactly one place", advice);
    }
    given.pop()
}

/// What the names have in common.
macro_rules! names {
    ($($name:ty),*) => {$(
        impl Written for $name {
            const WHAT: &'static str = "a name";
            const ADVICE: &'static str =
                "write 1 to 63 of the characters a-z, 0-9 and `-`, with no `-` at either end";

            fn meant(text: &str) -> Option<String> {
                let meant = text.trim().to_ascii_lowercase().replace(['_', ' ', '.'], "-");
                meant.parse::<$name>().is_ok().then_some(meant)
            }
        }
    )*};
}

names!(DeploymentName, GroupName, JobName, PackageName, TaskName);

impl Written for ImageRef {
    const WHAT: &'static str = "an image";
    const ADVICE: &'static str = "write a file that ends in `.aimg`, or `name@sha256:…`";
}

impl Written for Period {
    const WHAT: &'static str = "a time";
    const ADVICE: &'static str = "write a whole number and its unit (ms, s, m, h)";

    fn meant(text: &str) -> Option<String> {
        let (number, unit) = split_unit(text)?;
        let unit = match unit.to_ascii_lowercase().as_str() {
            "" | "s" => "s",
            "ms" => "ms",
            "m" => "m",
            "h" => "h",
            _ => return None,
        };
        Some(format!("{number}{unit}"))
    }
}

impl Written for ByteSize {
    const WHAT: &'static str = "a size";
    const ADVICE: &'static str = "write a whole number and its unit (B, KiB, MiB, GiB)";

    fn meant(text: &str) -> Option<String> {
        let (number, unit) = split_unit(text)?;
        let unit = match unit.to_ascii_lowercase().as_str() {
            "" | "b" | "bytes" => "B",
            "k" | "kb" | "ki" | "kib" => "KiB",
            "m" | "mb" | "mi" | "mib" => "MiB",
            "g" | "gb" | "gi" | "gib" => "GiB",
            _ => return None,
        };
        Some(format!("{number} {unit}"))
    }
}

/// A whole number and what follows it.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    Some((text[..text.len() - unit.len()].parse().ok()?, unit.trim()))
}
