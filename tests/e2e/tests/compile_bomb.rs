//! A signed image holds a component that takes the compiler for ever.

use std::fs;
use std::path::PathBuf;

use e2e::{App, Client, Daemon, Role, Workshop, eventually};
use guests_path::{Guest, compile_bomb};

const HELLO: &str = "deployment: hello\nimage: hello-1.0.0.aimg\njobs:\n- name: hello\n  groups:\n  - name: web\n    \
                     replicas: 1\n    tasks:\n    - { name: web, driver: app-partition, config: { package: web } }\n\
                     routes:\n- { match: { prefix: / }, group: web }\n";
const BOMB: &str = "deployment: bomb\nimage: bomb-1.0.0.aimg\njobs:\n- name: bomb\n  groups:\n  - name: web\n    \
                    replicas: 1\n    tasks:\n    - { name: web, driver: app-partition, config: { package: web } }\n\
                    routes:\n- { match: { prefix: /bomb }, group: web }\n";

fn app(name: &'static str, component: PathBuf) -> App<'static> {
    App { name, package: "web", version: "1.0.0", component, capabilities: &[] }
}

/// Two apps, one of which can't be compiled, and where they are declared.
fn apps() -> (Workshop, PathBuf, PathBuf) {
    let workshop = Workshop::new();
    let _ = workshop.build(&app("hello", Guest::Hello.component()));
    fs::write(workshop.path("bomb.wasm"), compile_bomb(200, 15_000)).expect("a component");
    let _ = workshop.build(&app("bomb", workshop.path("bomb.wasm")));
    let (hello, bomb) = (workshop.write("hello.yaml", HELLO), workshop.write("bomb.yaml", BOMB));
    (workshop, hello, bomb)
}

/// Processes that compile as children of this one.
fn compiling_under(parent: u32) -> Vec<PathBuf> {
    let told = format!(",parent={parent}\0");
    let processes = fs::read_dir("/proc").expect("a proc file system").flatten().map(|entry| entry.path());
    let is = |process: &PathBuf| {
        fs::read(process.join("cmdline")).is_ok_and(|line| line.ends_with(told.as_bytes()))
    };
    processes.filter(is).collect()
}

#[test]
fn a_compile_bomb_fails_with_its_reason_and_its_neighbour_never_notices() {
    let (workshop, hello, bomb) = apps();
    let role = Role::Dev { trust: workshop.trust() };
    let server = Daemon::start_with(&role, &workshop.path("data"), &["--compile-time", "2"]);
    server.deploy(&hello);
    let _ = server.hvm(&[&"deploy", &"--detach", &bomb]).success();
    let client = Client::new();
    let mut answered_beside_it = 0;
    let reason = eventually("the bomb has failed", || {
        let answer = client.get(&format!("{}/", server.ingress)).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answered_beside_it += u32::from(!compiling_under(server.pid()).is_empty());
        let status = server.status();
        let bomb = status.as_array().into_iter().flatten().find(|status| status["deployment"] == "bomb");
        let state = bomb.map(|bomb| bomb["groups"][0]["replicas"][0]["observed"]["state"].to_string());
        state.filter(|state| state.contains("failed")).ok_or_else(|| "not failed".to_owned())
    });
    assert!(reason.contains("processor time") && reason.contains("2s"), "{reason}");
    assert!(answered_beside_it > 0, "nothing was answered while it was compiled");
}

#[test]
fn an_agent_that_is_killed_leaves_no_process_that_compiles() {
    let (workshop, _, bomb) = apps();
    let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &workshop.path("data"));
    let _ = server.hvm(&[&"deploy", &"--detach", &bomb]).success();
    let pid = server.pid();
    let child =
        eventually("the bomb is being compiled", || compiling_under(pid).pop().ok_or_else(String::new));
    server.kill();
    eventually("its process is gone", || if child.exists() { Err(format!("{child:?}")) } else { Ok(()) });
}
