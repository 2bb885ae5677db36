//! The rules that one field can break by itself: ranges, forms, at least one.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::{
    ByteSize, DeploymentSpec, Grants, GroupSpec, KeySource, Origin, OriginHost, Period, Resources, RouteSpec,
    TaskSpec,
};

use super::error::{SpecError, shown};

/// Names and values of one task's environment together.
const MAX_ENV: ByteSize = ByteSize::kib(64);
const MAX_ENV_NAME_BYTES: usize = 256;
const MAX_PREFIX_BYTES: usize = 1_024;
const MAX_HEADER_NAME_BYTES: usize = 256;
/// A body is held in memory.
const MAX_BODY: ByteSize = ByteSize::mib(1_024);
const MAX_STORAGE: ByteSize = ByteSize::mib(1 << 20);
/// Of records and answers.
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(87_600 * 3_600);
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);
/// The one store that a partition has.
const STORE: &str = "default";

type Errors = Vec<SpecError>;

pub(super) fn check(spec: &DeploymentSpec) -> Errors {
    let mut errors = Errors::new();
    at_least_one(&mut errors, "jobs", spec.jobs.len(), "job");
    for (j, job) in spec.jobs.iter().enumerate() {
        at_least_one(&mut errors, &format!("jobs[{j}].groups"), job.groups.len(), "group");
        for (g, group) in job.groups.iter().enumerate() {
            check_group(&mut errors, group, &format!("jobs[{j}].groups[{g}]"));
        }
    }
    for (r, route) in spec.routes.iter().enumerate() {
        check_route(&mut errors, route, &format!("routes[{r}]"));
    }
    errors
}

fn at_least_one(errors: &mut Errors, path: &str, count: usize, what: &str) {
    if count == 0 {
        errors.push(SpecError::new(path, format!("lists no {what}"), format!("list at least one {what}")));
    }
}

fn within<T: PartialOrd + Display>(errors: &mut Errors, path: String, value: T, range: RangeInclusive<T>) {
    if !range.contains(&value) {
        let advice = format!("write {} to {}", range.start(), range.end());
        errors.push(SpecError::new(path, format!("{value} is out of range"), advice));
    }
}

fn check_group(errors: &mut Errors, group: &GroupSpec, path: &str) {
    for (field, copies) in [("partitions", group.partitions), ("replicas", group.replicas)] {
        if let Some(copies) = copies {
            within(errors, format!("{path}.{field}"), copies, 1..=GroupSpec::MAX_COPIES);
        }
    }
    if group.tasks.len() != 1 {
        errors.push(SpecError::new(
            format!("{path}.tasks"),
            format!("lists {} tasks, and this version runs exactly one per group", group.tasks.len()),
            "give each task a group of its own",
        ));
    }
    check_retention(errors, group, path);
    within(
        errors,
        format!("{path}.update.max_parallel"),
        group.update.max_parallel,
        1..=GroupSpec::MAX_COPIES,
    );
    for (c, constraint) in group.constraints.iter().enumerate() {
        let path = format!("{path}.constraints[{c}]");
        if constraint.attribute.is_empty() {
            let advice = "name an attribute of the hosts, such as `zone`";
            errors.push(SpecError::new(format!("{path}.attribute"), "is empty", advice));
        }
        at_least_one(errors, &format!("{path}.value"), constraint.value.len(), "value");
    }
    for (t, task) in group.tasks.iter().enumerate() {
        check_task(errors, task, &format!("{path}.tasks[{t}]"));
    }
}

fn check_retention(errors: &mut Errors, group: &GroupSpec, path: &str) {
    let mut check = |name: &str, count: (&str, Option<u32>), age: Option<Period>, bytes: Option<ByteSize>| {
        let field = |field: &str| format!("{path}.{name}.{field}");
        let (what, number) = count;
        if let Some(number) = number {
            within(errors, field(what), number, 1..=1_000_000_000);
        }
        if let Some(age) = age
            && !AGES.contains(&age.0)
        {
            let problem = format!("{age} is out of range");
            errors.push(SpecError::new(field("age"), problem, "write 1s to 87600h"));
        }
        if let Some(bytes) = bytes {
            within(errors, field("bytes"), bytes, ByteSize(1)..=MAX_STORAGE);
        }
        if number.is_none() && age.is_none() && bytes.is_none() {
            let advice = format!("write {what}, `age` or `bytes`, or remove it", what = shown(what));
            errors.push(SpecError::new(format!("{path}.{name}"), "sets no limit", advice));
        }
    };
    if let Some(history) = group.history {
        check("history", ("records", history.records), history.age, history.bytes);
    }
    if let Some(kept) = group.idempotency {
        check("idempotency", ("answers", kept.answers), kept.age, kept.bytes);
    }
}

fn check_task(errors: &mut Errors, task: &TaskSpec, path: &str) {
    let mut env_bytes = 0;
    for (name, value) in task.env.iter() {
        env_bytes += name.len() + value.len();
        let first = |c: u8| c.is_ascii_alphabetic() || c == b'_';
        let other = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        let valid = name.bytes().next().is_some_and(first) && name.bytes().all(other);
        if !valid || name.len() > MAX_ENV_NAME_BYTES {
            errors.push(SpecError::new(
                format!("{path}.env.{name}"),
                format!("{} is not valid as a variable's name", shown(name)),
                format!(
                    "write at most {MAX_ENV_NAME_BYTES} of the characters a-z, A-Z, 0-9, `_`, `-` and `.`, \
                     beginning with a letter or `_`"
                ),
            ));
        }
        if value.contains('\0') {
            let problem = "holds a NUL character, which no environment can";
            errors.push(SpecError::new(format!("{path}.env.{name}"), problem, "remove it"));
        }
    }
    if env_bytes > MAX_ENV.bytes() {
        errors.push(SpecError::new(
            format!("{path}.env"),
            format!("names and values are {env_bytes} bytes together"),
            format!("keep them within {MAX_ENV}; put larger things into the image or the state"),
        ));
    }
    check_resources(errors, &task.resources, &format!("{path}.resources"));
    check_grants(errors, &task.grants, &format!("{path}.grants"));
}

fn check_resources(errors: &mut Errors, resources: &Resources, path: &str) {
    let field = |field: &str| format!("{path}.{field}");
    if let Some(cpu) = resources.cpu {
        within(errors, field("cpu"), cpu.0, 1..=1_000_000);
    }
    within(errors, field("memory"), resources.memory, 1..=65_536);
    within(errors, field("mailbox"), resources.mailbox, 1..=65_536);
    for (name, deadline) in
        [("deadline", resources.deadline), ("migration_deadline", resources.migration_deadline)]
    {
        if !DEADLINES.contains(&deadline.0) {
            let problem = format!("{deadline} is out of range");
            errors.push(SpecError::new(field(name), problem, "write 1ms to 1h"));
        }
    }
    let one = ByteSize(1);
    within(errors, field("request_body"), resources.request_body, one..=MAX_BODY);
    within(errors, field("response_body"), resources.response_body, one..=MAX_BODY);
    within(errors, field("storage"), resources.storage, one..=MAX_STORAGE);
}

fn check_grants(errors: &mut Errors, grants: &Grants, path: &str) {
    for (k, store) in grants.keyvalue.iter().enumerate() {
        if store != STORE {
            errors.push(SpecError::new(
                format!("{path}.keyvalue[{k}]"),
                format!("there is no store {}", shown(store)),
                format!("write `{STORE}`, the one store that a partition has"),
            ));
        }
    }
    for (h, origin) in grants.http.iter().enumerate() {
        if let Err(error) = origin.parse::<Origin>() {
            errors.push(SpecError::new(
                format!("{path}.http[{h}]"),
                format!("{} {error}", shown(origin)),
                "write scheme, host and port where it is not the usual one, such as `https://rates.example`",
            ));
        }
    }
}

fn check_route(errors: &mut Errors, route: &RouteSpec, path: &str) {
    if let Some(host) = &route.r#match.host
        && host.parse::<OriginHost>().map(|read| read.to_string()).as_ref() != Ok(host)
    {
        errors.push(SpecError::new(
            format!("{path}.match.host"),
            format!("{} is no host name in lower case", shown(host)),
            "write the name alone, without scheme, port and path, such as `ledger.example`",
        ));
    }
    check_prefix(errors, &route.r#match.prefix, &format!("{path}.match.prefix"));
    match &route.key {
        Some(KeySource::PathSegment(0)) => {
            let problem = "segments are counted from 1";
            let advice = "write 1 or more: of `/accounts/42`, segment 2 is `42`";
            errors.push(SpecError::new(format!("{path}.key.path_segment"), problem, advice));
        }
        Some(KeySource::Header(name)) if !is_header_name(name) => errors.push(SpecError::new(
            format!("{path}.key.header"),
            format!("{} is no header's name", shown(name)),
            "write its name alone, such as `x-account`",
        )),
        Some(KeySource::Query(name)) if name.is_empty() => {
            let advice = "write the parameter's name: of `?account=42` it is `account`";
            errors.push(SpecError::new(format!("{path}.key.query"), "is empty", advice));
        }
        _ => {}
    }
}

fn check_prefix(errors: &mut Errors, prefix: &str, path: &str) {
    let mut segments = prefix.strip_prefix('/').unwrap_or(prefix).split('/');
    let advice = if !prefix.starts_with('/') {
        "begin it with `/`"
    } else if prefix.len() > MAX_PREFIX_BYTES {
        "shorten it to 1,024 bytes"
    } else if !prefix.bytes().all(|c| c.is_ascii_graphic()) || prefix.contains(['?', '#', '*']) {
        "write a path's beginning: no query, no `*`, no spaces, other characters percent-encoded"
    } else if prefix != "/" && prefix.ends_with('/') {
        "drop the `/` at the end: `/a` takes `/a` and everything below it"
    } else if prefix != "/" && segments.any(|segment| matches!(segment, "" | "." | "..")) {
        "remove empty, `.` and `..` segments"
    } else {
        return;
    };
    errors.push(SpecError::new(path, format!("{} is no prefix of paths", shown(prefix)), advice));
}

/// A `token` of RFC 9110, section 5.6.2.
fn is_header_name(name: &str) -> bool {
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    (1..=MAX_HEADER_NAME_BYTES).contains(&name.len()) && name.bytes().all(token)
}
