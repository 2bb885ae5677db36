//! Every rule of the deployment file, each with the line and the advice that its author sees.

use proptest::prelude::*;

use super::*;
use crate::{DeploymentSpec, KeySource};

/// A right file; tests change one line of it.
const LEDGER: &str = r#"deployment: ledger
image: ledger-1.0.0.aimg
jobs:
- name: ledger
  groups:
  - name: accounts
    partitions: 64
    tasks:
    - name: accounts
      driver: app-partition
      config: { package: accounts }
      env: { CURRENCY: EUR, LIMIT: "100" }
      resources: { cpu: 500, memory: 64, deadline: 5s, storage: 1 GiB }
      grants: { keyvalue: [default], http: ["https://rates.example"] }
    update: { max_parallel: 8 }
    constraints:
    - { attribute: zone, operator: in, value: [a, b] }
  - name: web
    replicas: 3
    tasks:
    - { name: web, driver: app-partition, config: { package: web } }
routes:
- { match: { prefix: /accounts }, group: accounts, key: { path_segment: 2 } }
- match: { host: ledger.example, prefix: / }
  group: web
"#;

/// What is said of a file.
fn read(text: &str, file: &str) -> Result<DeploymentSpec, Vec<String>> {
    let listed = |errors: Vec<SpecError>| errors.iter().map(|error| error.in_file(file)).collect();
    parse(text, Format::of_file_name(file)).map_err(listed)
}

fn ledger() -> DeploymentSpec {
    read(LEDGER, "ledger.yaml").expect("the example is right")
}

/// What is said of the example once `from` is replaced by `to`.
fn said(from: &str, to: &str) -> Vec<String> {
    assert_eq!(LEDGER.matches(from).count(), 1, "`{from}` must stand once in the example");
    match read(&LEDGER.replace(from, to), "ledger.yaml") {
        Ok(_) => Vec::new(),
        Err(said) => said,
    }
}

/// Each case: what is replaced, by what, the line and field that are named, a piece of what is said.
fn refuses(cases: &[(&str, &str, u32, &str, &str)]) {
    for (from, to, line, field, piece) in cases {
        let said = said(from, to);
        assert_eq!(said.len(), 1, "{to:?}: {said:#?}");
        assert!(said[0].starts_with(&format!("ledger.yaml:{line}:")), "{to:?}: {}", said[0]);
        assert!(said[0].contains(&format!(": {field}: ")), "{to:?}: {}", said[0]);
        assert!(said[0].contains(piece), "{to:?}: {}", said[0]);
    }
}

#[test]
fn a_right_file_becomes_its_spec() {
    let spec = ledger();
    let accounts = &spec.jobs[0].groups[0];
    assert_eq!((accounts.partitions, accounts.replicas), (Some(64), None));
    assert_eq!(accounts.tasks[0].env["LIMIT"], "100");
    assert_eq!(accounts.tasks[0].resources.cpu, Some(crate::CpuMhz(500)));
    assert_eq!(accounts.tasks[0].resources.mailbox, 256);
    assert_eq!(accounts.constraints[0].value, ["a", "b"]);
    assert_eq!(spec.routes[0].key, Some(KeySource::PathSegment(2)));
    assert_eq!(spec.routes[1].r#match.host.as_deref(), Some("ledger.example"));
}

#[test]
fn json_and_yaml_of_one_spec_are_equal() {
    let json = serde_json::to_string(&ledger()).expect("a spec is JSON");
    assert_eq!(read(&json, "ledger.json"), Ok(ledger()));
    let pretty = serde_json::to_string_pretty(&ledger()).expect("a spec is JSON").replace("  ", "\t");
    assert_eq!(read(&pretty, "ledger.JSON"), Ok(ledger()));
}

#[test]
fn text_survives_as_it_was_written() {
    for value in [
        "",
        " ",
        "a\tb",
        "é😀",
        "line\nline",
        "\"quoted\"",
        "\\",
        "yes",
        "1.10",
        "\u{7f}\u{85}\u{9b}\u{2028}\u{feff}\u{ffff}",
    ] {
        let mut spec = ledger();
        spec.jobs[0].groups[0].tasks[0].env.insert("TEXT".to_owned(), value.to_owned());
        let json = serde_json::to_string(&spec).expect("a spec is JSON");
        assert_eq!(read(&json, "ledger.json"), Ok(spec), "{value:?}");
    }
    let escapes = serde_json::to_string(&ledger()).expect("JSON").replace("EUR", "\\ud83d\\ude00\\u007f\\/");
    let spec = read(&escapes, "ledger.json").expect("escapes are JSON");
    assert_eq!(spec.jobs[0].groups[0].tasks[0].env["CURRENCY"], "😀\u{7f}/");
}

#[test]
fn unknown_fields_are_refused_with_the_nearest_known_one() {
    refuses(&[
        (
            "  constraints:",
            "  constraint:",
            16,
            "jobs[0].groups[0].constraint",
            "did you mean `constraints`?",
        ),
        ("memory: 64", "memroy: 64", 13, "jobs[0].groups[0].tasks[0].resources.memroy", "`memory`"),
        (
            "image: led",
            "volumes: x\nimage: led",
            2,
            "volumes",
            "here may stand: deployment, image, jobs, routes",
        ),
        (
            "max_parallel: 8",
            "canary: 1",
            15,
            "jobs[0].groups[0].update.canary",
            "is not offered by this version",
        ),
    ]);
}

#[test]
fn what_is_missing_is_named() {
    refuses(&[
        ("deployment: ledger\n", "", 1, "deployment", "is missing; write 1 to 63"),
        ("image: ledger-1.0.0.aimg", "image:", 2, "image", "has no value; write a file that ends in `.aimg`"),
        (
            "      driver: app-partition\n",
            "",
            9,
            "jobs[0].groups[0].tasks[0].driver",
            "write `app-partition`",
        ),
        ("{ package: accounts }", "{}", 11, "jobs[0].groups[0].tasks[0].config.package", "is missing"),
        ("{ prefix: /accounts }", "{}", 23, "routes[0].match.prefix", "is missing"),
        ("operator: in, ", "", 17, "jobs[0].groups[0].constraints[0].operator", "`not-in`"),
    ]);
}

#[test]
fn lists_have_at_least_one_item_and_a_group_exactly_one_task() {
    let said = |jobs: &str| {
        let text = format!("deployment: a\nimage: a.aimg\njobs:{jobs}\n");
        read(&text, "a.yaml").expect_err("a list is too short or too long").remove(0)
    };
    assert_eq!(said(" []"), "a.yaml:3:7: jobs: lists no job; list at least one job");
    assert!(said("").starts_with("a.yaml:3:1: jobs: has no value; list at least one job"));
    assert!(said("\n- { name: a, groups: [] }").contains("jobs[0].groups: lists no group"));
    let none = said("\n- { name: a, groups: [{ name: a, tasks: [] }] }");
    assert!(none.contains("jobs[0].groups[0].tasks: lists 0 tasks"), "{none}");
    let task = |name: &str| format!("{{ name: {name}, driver: app-partition, config: {{ package: a }} }}");
    let two =
        said(&format!("\n- {{ name: a, groups: [{{ name: a, tasks: [{}, {}] }}] }}", task("a"), task("b")));
    assert!(two.contains("this version runs exactly one per group"), "{two}");
}

#[test]
fn numbers_times_and_sizes_have_their_range() {
    let resources = |field: &str, value: &str| {
        said("cpu: 500, memory: 64, deadline: 5s, storage: 1 GiB", &format!("{field}: {value}"))
    };
    for (field, value, advice) in [
        ("cpu", "0", "0 is out of range; write 1 to"),
        ("memory", "0", "0 is out of range; write 1 to 65536"),
        ("memory", "65537", "65537 is out of range; write 1 to 65536"),
        ("mailbox", "0", "0 is out of range; write 1 to 65536"),
        ("mailbox", "65537", "write 1 to 65536"),
        ("deadline", "0s", "0s is out of range; write 1ms to 1h"),
        ("deadline", "61m", "write 1ms to 1h"),
        ("storage", "0 B", "0 B is out of range; write 1 B to 1024 GiB"),
        ("request_body", "0 B", "write 1 B to 1 GiB"),
        ("response_body", "2 GiB", "write 1 B to 1 GiB"),
    ] {
        let said = resources(field, value);
        assert_eq!(said.len(), 1, "{field}: {value}: {said:?}");
        assert!(said[0].contains(&format!("resources.{field}: ")) && said[0].contains(advice), "{}", said[0]);
    }
    let partitions = "jobs[0].groups[0].partitions";
    refuses(&[
        ("partitions: 64", "partitions: 0", 7, partitions, "0 is out of range; write 1 to 65536"),
        ("partitions: 64", "partitions: 70000", 7, partitions, "70000 is out of range; write 1 to 65536"),
        ("partitions: 64", "partitions: -1", 7, partitions, "-1 is out of range"),
        ("partitions: 64", "partitions: 9999999999", 7, partitions, "9999999999 is out of range"),
        ("replicas: 3", "replicas: 65537", 19, "jobs[0].groups[1].replicas", "write 1 to 65536"),
        ("max_parallel: 8", "max_parallel: 0", 15, "jobs[0].groups[0].update.max_parallel", "write 1 to"),
        ("path_segment: 2", "path_segment: 0", 23, "routes[0].key.path_segment", "counted from 1"),
    ]);
}

#[test]
fn metering_is_time_unless_the_file_says_deterministic() {
    let web = "config: { package: web } }";
    let with = |metering: &str| format!("config: {{ package: web }}, metering: {metering} }}");
    let metering = |text: &str| {
        let spec = read(text, "ledger.yaml").expect("it is right");
        let task = spec.jobs[0].groups[1].tasks[0].clone();
        (task.metering, serde_json::to_string(&task).expect("JSON").contains("metering"))
    };
    assert_eq!(metering(LEDGER), (crate::Metering::Time, false), "the default is not written");
    let deterministic = LEDGER.replace(web, &with("deterministic"));
    assert_eq!(metering(&deterministic), (crate::Metering::Deterministic, true));
    let said = said(web, &with("fuel"));
    assert!(said[0].contains("metering: ") && said[0].contains("time, deterministic"), "{said:?}");
}

/// The example with this line in the partitioned group.
fn with_line(line: &str) -> Result<DeploymentSpec, Vec<String>> {
    read(&LEDGER.replace("    partitions: 64\n", &format!("    partitions: 64\n    {line}\n")), "ledger.yaml")
}

#[test]
fn history_is_a_number_an_age_or_several_limits() {
    let accounts = |line: &str| with_line(line).expect("it is right").jobs[0].groups[0].clone();
    let history = |line: &str| accounts(line).history.expect("a history");
    let hours = |hours: u64| Some(crate::Period(std::time::Duration::from_secs(hours * 3_600)));
    assert_eq!(ledger().jobs[0].groups[0].history, None);
    assert_eq!(history("history: 1000"), crate::HistorySpec { records: Some(1000), age: None, bytes: None });
    assert_eq!(history("history: 24h"), crate::HistorySpec { records: None, age: hours(24), bytes: None });
    let all = history("history: { records: 5, age: 2h, bytes: 1 MiB }");
    assert_eq!(
        all,
        crate::HistorySpec { records: Some(5), age: hours(2), bytes: Some(crate::ByteSize::mib(1)) }
    );
    let kept = accounts("idempotency: { answers: 7, age: 48h }").idempotency.expect("it is set");
    assert_eq!((kept.answers, kept.age, kept.bytes), (Some(7), hours(48), None));
    let spec = with_line("history: 24h").expect("it is right");
    let json = serde_json::to_string(&spec).expect("a spec is JSON");
    assert_eq!(read(&json, "a.json"), Ok(spec));
}

#[test]
fn what_is_no_history_is_explained() {
    for (line, field, piece) in [
        ("history: 0", "history.records", "write 1 to 1000000000"),
        ("history: forever", "history", "is not a time"),
        ("history: \"1000\"", "history", "is not a time"),
        ("history: 24h ago", "history", "is not a time"),
        ("history: [1]", "history", "is not a text"),
        ("history: { last: 5 }", "history.last", "is no field"),
        ("history: { records: many }", "history.records", "is not a number"),
        ("history: { age: 1ms }", "history.age", "write 1s to 87600h"),
        ("idempotency: { answers: 0 }", "idempotency.answers", "write 1 to 1000000000"),
        ("idempotency: {}", "idempotency", "sets no limit"),
        ("idempotency: 5", "idempotency", "is not a map"),
    ] {
        let said = with_line(line).expect_err(line);
        assert!(said[0].contains(&format!("groups[0].{field}: ")), "{line}: {said:#?}");
        assert!(said[0].contains(piece), "{line}: {said:#?}");
    }
    for line in ["history: 5", "idempotency: { answers: 5 }"] {
        let said = said("    replicas: 3\n", &format!("    replicas: 3\n    {line}\n"));
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].contains("is set for copies without state"), "{said:#?}");
    }
}

#[test]
fn wrong_units_are_explained() {
    let resources = |field: &str| format!("jobs[0].groups[0].tasks[0].resources.{field}");
    refuses(&[
        (
            "memory: 64",
            "memory: 64MB",
            13,
            &resources("memory"),
            "a whole number of MB, without quotes and unit; did you mean `64`?",
        ),
        ("memory: 64", "memory: 0.5", 13, &resources("memory"), "`0.5` is not a whole number"),
        (
            "cpu: 500",
            "cpu: 500MHz",
            13,
            &resources("cpu"),
            "of MHz, without quotes and unit; did you mean `500`?",
        ),
        (
            "deadline: 5s",
            "deadline: 30",
            13,
            &resources("deadline"),
            "`30` is not a time; write a whole number and its unit (ms, s, m, h); did you mean `30s`?",
        ),
        ("deadline: 5s", "deadline: soon", 13, &resources("deadline"), "`soon` is not a time"),
        (
            "storage: 1 GiB",
            "storage: 64MB",
            13,
            &resources("storage"),
            "`64MB` is not a size; write a whole number and its unit (B, KiB, MiB, GiB); did you mean `64 MiB`?",
        ),
        ("storage: 1 GiB", "storage: 1024", 13, &resources("storage"), "did you mean `1024 B`?"),
    ]);
}

#[test]
fn wrong_kinds_are_explained() {
    let task = |field: &str| format!("jobs[0].groups[0].tasks[0].{field}");
    refuses(&[
        ("LIMIT: \"100\"", "LIMIT: 100", 12, &task("env.LIMIT"), "`100` is not a text; put it in quotes"),
        ("CURRENCY: EUR", "CURRENCY:", 12, &task("env.CURRENCY"), "has no value"),
        ("value: [a, b]", "value: a", 17, "jobs[0].groups[0].constraints[0].value", "`a` is not a list"),
        (
            "update: { max_parallel: 8 }",
            "update: fast",
            15,
            "jobs[0].groups[0].update",
            "`fast` is not a map",
        ),
        ("{ package: accounts }", "accounts", 11, &task("config"), "`accounts` is not a map"),
        ("keyvalue: [default]", "config: on", 14, &task("grants.config"), "write `true` or `false`"),
        ("group: web", "group: 12", 25, "routes[1].group", "`12` is not a text; put it in quotes"),
        ("deployment: ledger", "deployment: My_Ledger", 1, "deployment", "did you mean `my-ledger`?"),
        ("ledger-1.0.0.aimg", "ledger.tar", 2, "image", "`ledger.tar` is not an image"),
        (
            "operator: in",
            "operator: not_in",
            17,
            "jobs[0].groups[0].constraints[0].operator",
            "did you mean `not-in`?",
        ),
        (
            "operator: in",
            "operator: equals",
            17,
            "jobs[0].groups[0].constraints[0].operator",
            "write one of: in, not-in",
        ),
        ("{ path_segment: 2 }", "{}", 23, "routes[0].key", "exactly one place"),
        ("{ path_segment: 2 }", "{ path_segment: 2, query: a }", 23, "routes[0].key", "exactly one place"),
    ]);
}

#[test]
fn drivers_that_this_version_does_not_offer_are_named_as_such() {
    let field = "jobs[0].groups[0].tasks[0].driver";
    let driver = |name: &str| format!("driver: {name}\n      config: {{ package: accounts }}");
    let old = driver("app-partition");
    for name in ["exec", "container", "java"] {
        refuses(&[(&old, &driver(name), 10, field, "is not offered by this version; write `app-partition`")]);
    }
    refuses(&[(&old, &driver("docker"), 10, field, "`docker` is no driver; write `app-partition`")]);
}

#[test]
fn grants_are_checked() {
    let grants = |field: &str| format!("jobs[0].groups[0].tasks[0].grants.{field}");
    refuses(&[
        (
            "[default]",
            "[default, sessions]",
            14,
            &grants("keyvalue[1]"),
            "no store `sessions`; write `default`",
        ),
        ("https://rates.example", "rates.example", 14, &grants("http[0]"), "does not begin with `http://`"),
        ("https://rates.example", "https://rates.example/v1", 14, &grants("http[0]"), "more than a scheme"),
        ("https://rates.example", "https://*.example", 14, &grants("http[0]"), "no `*`"),
        (
            "https://rates.example",
            "http://2130706433",
            14,
            &grants("http[0]"),
            "an IP address in its usual form",
        ),
        ("https://rates.example", "https://rates.example:0", 14, &grants("http[0]"), "from 1 to 65535"),
        (
            "config: { package: web }",
            "config: { package: web }, grants: { keyvalue: [default] }",
            21,
            "jobs[0].groups[1].tasks[0].grants.keyvalue",
            "declare the group with `partitions`",
        ),
    ]);
}

#[test]
fn environments_are_checked() {
    let env = |field: &str| format!("jobs[0].groups[0].tasks[0].env{field}");
    let long = format!("CURRENCY: {}", "x".repeat(65_536));
    refuses(&[
        ("CURRENCY: EUR", "\"A=B\": EUR", 12, &env(".A=B"), "is not valid as a variable's name"),
        ("CURRENCY: EUR", "\"\": EUR", 12, &env("."), "is not valid as a variable's name"),
        ("CURRENCY: EUR", "1A: EUR", 12, &env(".1A"), "beginning with a letter"),
        ("CURRENCY: EUR", "A: \"\\0\"", 12, &env(".A"), "NUL"),
        ("CURRENCY: EUR", &long, 12, &env(""), "keep them within 64 KiB"),
    ]);
    assert_eq!(said("CURRENCY: EUR", "db.url: x, _A-1: y"), Vec::<String>::new());
}

#[test]
fn names_are_unique() {
    let twice = LEDGER
        .replace("- name: web\n", "- name: accounts\n")
        .replace("group: web", "group: accounts\n  key: { query: a }");
    let errors = parse(&twice, Format::Yaml).expect_err("two groups share a name");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].field, "jobs[0].groups[1].name");
    assert!(errors[0].problem.contains("already the name of the group at jobs[0].groups[0].name"));
    let job = "- name: ledger\n  groups:\n  - { name: x, tasks: [{ name: x, driver: app-partition, config: { package: x } }] }\nroutes:";
    refuses(&[(
        "routes:",
        job,
        22,
        "jobs[1].name",
        "`ledger` is already the name of the job at jobs[0].name",
    )]);
}

#[test]
fn a_group_is_partitioned_or_replicated() {
    refuses(&[(
        "partitions: 64",
        "partitions: 64\n    replicas: 2",
        8,
        "jobs[0].groups[0].replicas",
        "keep `partitions` for stateful shards",
    )]);
}

#[test]
fn routes_reach_a_group_by_the_way_that_it_needs() {
    refuses(&[
        ("group: web", "group: wbe", 25, "routes[1].group", "did you mean `web`?"),
        ("group: web", "group: storefront", 25, "routes[1].group", "write one of: accounts, web"),
        (", key: { path_segment: 2 }", "", 23, "routes[0].key", "only a key says which partition answers"),
        (
            "group: web",
            "group: web\n  key: { query: a }",
            26,
            "routes[1].key",
            "any copy answers any request",
        ),
        ("prefix: /accounts", "prefix: accounts", 23, "routes[0].match.prefix", "begin it with `/`"),
        ("prefix: /accounts", "prefix: /accounts/", 23, "routes[0].match.prefix", "drop the `/`"),
        ("prefix: /accounts", "prefix: /a/../b", 23, "routes[0].match.prefix", "`..` segments"),
        ("prefix: /accounts", "prefix: /a*", 23, "routes[0].match.prefix", "no `*`"),
        ("path_segment: 2", "header: \"x account\"", 23, "routes[0].key.header", "is no header's name"),
        ("path_segment: 2", "query: \"\"", 23, "routes[0].key.query", "is empty"),
        (
            "host: ledger.example",
            "host: Ledger.example:80",
            24,
            "routes[1].match.host",
            "without scheme, port",
        ),
        (
            "host: ledger.example, prefix: /",
            "prefix: /accounts",
            24,
            "routes[1].match",
            "same requests as routes[0]",
        ),
    ]);
}

#[test]
fn all_mistakes_are_listed_in_the_order_of_the_file() {
    let text = LEDGER
        .replace("image: ledger", "imgae: ledger")
        .replace("partitions: 64", "partitions: many")
        .replace("deadline: 5s", "deadline: 5")
        .replace("prefix: /accounts", "prefix: accounts");
    let errors = parse(&text, Format::Yaml).expect_err("four lines are wrong");
    let found: Vec<_> = errors.iter().map(|e| (e.place.as_ref().map(|p| p.line), e.field.as_str())).collect();
    let deadline = "jobs[0].groups[0].tasks[0].resources.deadline";
    assert_eq!(
        found,
        [
            (Some(1), "image"),
            (Some(2), "imgae"),
            (Some(7), "jobs[0].groups[0].partitions"),
            (Some(13), deadline),
            (Some(23), "routes[0].match.prefix"),
        ]
    );
}

#[test]
fn an_error_stands_at_its_line_and_column_and_covers_its_value() {
    let errors = parse(&LEDGER.replace("5s", "5 soon"), Format::Yaml).expect_err("no time");
    let place = errors[0].place.clone().expect("it has a place");
    assert_eq!((place.line, place.column, place.width), (13, 52, 6));
    assert_eq!(
        errors[0].in_file("d/ledger.yaml"),
        "d/ledger.yaml:13:52: jobs[0].groups[0].tasks[0].resources.deadline: `5 soon` is not a time; \
         write a whole number and its unit (ms, s, m, h)"
    );
}

#[test]
fn what_is_no_yaml_or_json_is_refused_at_its_line() {
    for (text, file, start) in [
        ("deployment: a\n\tjobs: b\n", "a.yaml", "a.yaml:2:1: "),
        ("deployment: a\ndeployment: b\n", "a.yaml", "a.yaml:2:1: this can't be read: "),
        ("deployment: [a\n", "a.yaml", "a.yaml:"),
        ("deployment: *a\n", "a.yaml", "a.yaml:1:13: "),
        ("deployment: a\n---\ndeployment: b\n", "a.yaml", "a.yaml:"),
        ("{\"deployment\": \"a\",\n}", "a.json", "a.json:2:1: this is no JSON: "),
        ("deployment: a\n", "a.json", "a.json:1:1: this is no JSON"),
        ("", "a.yaml", "a.yaml:1:1: the file is empty"),
        ("# nothing\n", "a.yaml", "a.yaml:1:1: "),
        ("- a\n", "a.yaml", "a.yaml:1:1: the file holds no fields"),
    ] {
        let errors = read(text, file).expect_err("it is no deployment");
        assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
        assert!(errors[0].starts_with(start), "{text:?}: {}", errors[0]);
    }
}

#[test]
fn messages_hold_nothing_that_a_terminal_obeys() {
    let errors = read("{\"\\u001b[2J\": 1, \"image\": \"\\u001b[31m\"}", "\u{7}.json").expect_err("wrong");
    for error in errors {
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}

#[test]
fn a_file_is_bounded_in_size_depth_and_repetition() {
    let large = format!("deployment: a\n# {}\n", "x".repeat(MAX_FILE_BYTES));
    let deep = format!("deployment: {}", "[".repeat(10_000));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    let text = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 900].join(", "));
    for (text, file) in
        [(large, "a.yaml"), (deep.clone(), "a.yaml"), (deep, "a.json"), (bomb, "a.yaml"), (text, "a.yaml")]
    {
        let errors = read(&text, file).expect_err("it is too much");
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
    let many: String = (0..1_000).map(|n| format!("field{n}: x\n")).collect();
    assert_eq!(read(&many, "a.yaml").map_err(|errors| errors.len()), Err(MAX_ERRORS));
}

#[test]
fn an_anchor_may_be_used_again() {
    let text = LEDGER.replace("env: {", "env: &env {").replace("package: web }", "package: web }, env: *env");
    let spec = read(&text, "ledger.yaml").expect("aliases are YAML");
    assert_eq!(spec.jobs[0].groups[1].tasks[0].env, spec.jobs[0].groups[0].tasks[0].env);
}

#[test]
fn a_spec_without_its_file_is_checked_by_the_same_rules_and_located_later() {
    let mut spec = ledger();
    assert_eq!(validate(&spec), Ok(()));
    spec.jobs[0].groups[0].partitions = Some(70_000);
    spec.routes[1].key = Some(KeySource::PathSegment(1));
    let mut errors = validate(&spec).expect_err("two rules are broken");
    assert!(errors.iter().all(|error| error.place.is_none()));
    assert_eq!(
        errors[0].to_string(),
        "jobs[0].groups[0].partitions: 70000 is out of range; write 1 to 65536"
    );
    locate(LEDGER, Format::Yaml, &mut errors);
    let places: Vec<String> = errors.iter().filter_map(|e| Some(e.place.as_ref()?.to_string())).collect();
    // The route has no key in the file: its own beginning is the nearest.
    assert_eq!(places, ["7:17", "24:3"]);
}

#[test]
fn a_live_group_keeps_its_partitions() {
    let old = ledger();
    assert_eq!(change_allowed(&old, &old), []);
    let changed = |change: fn(&mut DeploymentSpec)| {
        let mut new = ledger();
        change(&mut new);
        change_allowed(&old, &new).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let count = changed(|new| new.jobs[0].groups[0].partitions = Some(128));
    assert!(
        count[0].starts_with("jobs[0].groups[0].partitions: `accounts` is live with 64 partitions"),
        "{count:?}"
    );
    let replicated = changed(|new| new.jobs[0].groups[0].partitions = None);
    assert!(replicated[0].contains("keep `partitions: 64`"), "{replicated:?}");
    let partitioned = changed(|new| new.jobs[0].groups[1].partitions = Some(3));
    assert!(
        partitioned[0].starts_with("jobs[0].groups[1].partitions: `web` is live as copies"),
        "{partitioned:?}"
    );
    let renamed = changed(|new| new.deployment = "other".parse().expect("a name"));
    assert!(renamed[0].contains("another deployment than `ledger`"), "{renamed:?}");
    let moved = changed(|new| new.routes[0].key = Some(KeySource::PathSegment(3)));
    assert!(
        moved[0].starts_with("routes[0].key: `accounts` is live and divided by path segment 2"),
        "{moved:?}"
    );
    // Copies without state may be more or fewer, groups may come and go.
    assert_eq!(changed(|new| new.jobs[0].groups[1].replicas = Some(9)), Vec::<String>::new());
    assert_eq!(changed(|new| drop(new.jobs[0].groups.remove(0))), Vec::<String>::new());
}

#[test]
fn every_field_of_the_schema_is_read() {
    let schema = json_schema();
    let parts = schema["$defs"].as_object().expect("definitions").values().chain([&schema]);
    let variants = |part: &serde_json::Value| part["oneOf"].as_array().cloned().unwrap_or_default();
    for part in parts.flat_map(|part| variants(part).into_iter().chain([part.clone()])) {
        for name in part["properties"].as_object().into_iter().flat_map(|fields| fields.keys()) {
            let reader = include_str!("structure.rs");
            assert!(reader.contains(&format!("\"{name}\"")), "`{name}` is in the schema and not read");
        }
    }
}

#[test]
fn the_published_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deployment.schema.json");
    let current = json_schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        let text = serde_json::to_string_pretty(&current).expect("a schema is JSON") + "\n";
        std::fs::write(path, text).expect("docs/ can be written");
    }
    let text = std::fs::read_to_string(path).expect("docs/deployment.schema.json is there");
    let published: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(
        published == current,
        "run this test with UPDATE_SCHEMA=1 to write docs/deployment.schema.json anew"
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,200}|[a-z:\\-\\[\\]{}&*!|>'\"#\n\t ]{0,200}") {
        for file in ["a.yaml", "a.json"] {
            if let Err(errors) = read(&text, file) {
                prop_assert!(!errors.is_empty());
            }
        }
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_without_a_panic(
        at in 0..LEDGER.len(), cut in 0..30_usize, put in "\\PC{0,5}",
    ) {
        let start = LEDGER.floor_char_boundary(at);
        let end = LEDGER.floor_char_boundary((at + cut).min(LEDGER.len()));
        let text = format!("{}{put}{}", &LEDGER[..start], &LEDGER[end..]);
        if let Err(errors) = parse(&text, Format::Yaml) {
            prop_assert!(errors.iter().all(|error| error.place.is_some()));
        }
    }
}
