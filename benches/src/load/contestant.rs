//! Who takes part: each server, how it is started, and what has to be made before.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::LoadError;
use super::server::{Server, free_address};

/// The floor: hyper alone, which answers the same bytes.
pub(crate) const FLOOR: &str = "bare hyper";
/// hyper and wasmtime without us, with the settings of our engine; instances are kept.
pub(crate) const BARE: &str = "bare hyper and wasmtime, instance reused";
/// The same with a fresh instance for each request.
pub(crate) const BARE_FRESH: &str = "bare hyper and wasmtime, instance per request";
/// Ours as deployed by default.
pub(crate) const HVM: &str = "**HVM**, instance reused";
/// Ours with a fresh instance for each request.
pub(crate) const HVM_FRESH: &str = "**HVM**, instance per request";
/// `wasmtime serve` as it comes: a fresh instance for each request.
pub(crate) const WASMTIME: &str = "`wasmtime serve`, as it comes";
/// `wasmtime serve` with what makes fresh instances cheapest.
pub(crate) const WASMTIME_FRESH: &str = "`wasmtime serve`, fresh instances, best flags";
/// `wasmtime serve` that keeps its instances.
pub(crate) const WASMTIME_REUSE: &str = "`wasmtime serve`, instances reused without limit";
/// workerd with a JavaScript handler.
pub(crate) const WORKERD: &str = "workerd";

/// What a pooled instance of `wasmtime serve` keeps resident, in bytes: more than `hello` touches.
const KEEP_RESIDENT: u32 = 2 << 20;

const WORKER: &str = "export default { fetch() { return new Response('hello\\n', \
    { headers: { 'content-type': 'text/plain; charset=utf-8' } }); } };\n";

/// Where the programs and the component are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `hvm`.
    pub hvm: PathBuf,
    /// `appimage-tool`.
    pub appimage_tool: PathBuf,
    /// `hyper-floor`.
    pub floor: PathBuf,
    /// The `wasmtime` command.
    pub wasmtime: PathBuf,
    /// `workerd`.
    pub workerd: PathBuf,
    /// `wrk`.
    pub wrk: PathBuf,
    /// The component that all wasm hosts run.
    pub guest: PathBuf,
}

/// One server.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    make: Box<dyn Fn(SocketAddr) -> Result<Command, LoadError>>,
    log: PathBuf,
}

impl Contestant {
    /// Starts it and waits for its first answer.
    pub(crate) fn start(&self) -> Result<Server, LoadError> {
        let address = free_address()?;
        let mut server = Server::spawn((self.make)(address)?, address, &self.log)?;
        server.wait_for_first_answer()?;
        Ok(server)
    }
}

/// All servers, ready to be started. What they need is made in `work`.
pub(crate) fn contestants(programs: &Programs, work: &Path) -> Result<Vec<Contestant>, LoadError> {
    let pool = format!(
        "pooling-allocator=y,pooling-memory-keep-resident={KEEP_RESIDENT},\
         pooling-table-keep-resident={KEEP_RESIDENT},pooling-pagemap-scan=y"
    );
    let mut all = vec![
        floor(FLOOR, programs, work, None),
        floor(BARE, programs, work, Some("reused")),
        floor(BARE_FRESH, programs, work, Some("fresh")),
        hvm(HVM, programs, work, &deployment("replicas: 2", "reuse", 64, ""), &[])?,
        hvm(HVM_FRESH, programs, work, &deployment("replicas: 2", "per-request", 64, ""), &[])?,
        wasmtime(WASMTIME, programs, work, &[]),
        wasmtime(WASMTIME_FRESH, programs, work, &["-O", &pool]),
        wasmtime(WASMTIME_REUSE, programs, work, &["-O", &pool, "--max-instance-reuse-count", "4294967295"]),
    ];
    all.push(workerd(programs, work)?);
    Ok(all)
}

fn log(work: &Path, name: &str) -> PathBuf {
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect();
    work.join(format!("{}.log", plain.trim().replace(' ', "-")))
}

fn floor(
    name: &'static str,
    programs: &Programs,
    work: &Path,
    instances: Option<&'static str>,
) -> Contestant {
    let (program, guest) = (programs.floor.clone(), programs.guest.clone());
    let make = move |address: SocketAddr| {
        let mut command = Command::new(&program);
        command.arg(address.to_string());
        if let Some(instances) = instances {
            command.arg(instances).arg(&guest);
        }
        Ok(command)
    };
    Contestant { name, make: Box::new(make), log: log(work, name) }
}

fn wasmtime(name: &'static str, programs: &Programs, work: &Path, flags: &[&str]) -> Contestant {
    let (program, guest, cache) = (programs.wasmtime.clone(), programs.guest.clone(), work.join("wasmtime"));
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let make = move |address: SocketAddr| {
        let mut command = Command::new(&program);
        // The code cache, as ours has one.
        command.env("XDG_CACHE_HOME", &cache).args(["serve", "-S", "cli=y", "-C", "cache=y"]);
        command.args(&flags).args(["--addr", &address.to_string()]).arg(&guest);
        Ok(command)
    };
    Contestant { name, make: Box::new(make), log: log(work, name) }
}

fn workerd(programs: &Programs, work: &Path) -> Result<Contestant, LoadError> {
    write(&work.join("worker.js"), WORKER)?;
    let (program, folder) = (programs.workerd.clone(), work.to_owned());
    let make = move |address: SocketAddr| {
        let config = folder.join("worker.capnp");
        write(
            &config,
            &format!(
                "using Workerd = import \"/workerd/workerd.capnp\";\n\
                 const config :Workerd.Config = (\n  services = [(name = \"main\", worker = (\n    \
                 modules = [(name = \"worker\", esModule = embed \"worker.js\")],\n    \
                 compatibilityDate = \"2026-01-01\"))],\n  \
                 sockets = [(name = \"http\", address = \"{address}\", http = (), service = \"main\")]);\n"
            ),
        )?;
        let mut command = Command::new(&program);
        command.arg("serve").arg(config);
        Ok(command)
    };
    Ok(Contestant { name: WORKERD, make: Box::new(make), log: log(work, WORKERD) })
}

/// A deployment of `hello`: so many copies (`replicas: n` or `partitions: n`), each with so much memory in MB and no cap
/// on its processor time.
pub(crate) fn deployment(copies: &str, instance: &str, memory: u32, key: &str) -> String {
    format!(
        "deployment: bench\nimage: hello.aimg\njobs:\n- name: hello\n  groups:\n  - name: web\n    {copies}\n    \
         tasks:\n    - name: web\n      driver: app-partition\n      config: {{ package: web }}\n      \
         instance: {instance}\n      resources: {{ memory: {memory} }}\n\
         routes:\n- {{ match: {{ prefix: / }}, group: web{key} }}\n"
    )
}

/// `hvm dev` with a signed image, deployed before and stopped again: what is started is a server that has compiled
/// its image and comes back.
pub(crate) fn hvm(
    name: &'static str,
    programs: &Programs,
    work: &Path,
    deployment: &str,
    flags: &[&str],
) -> Result<Contestant, LoadError> {
    let log = log(work, name);
    let folder = log.with_extension("");
    fs::create_dir_all(folder.join("image")).map_err(LoadError::io("make a folder for an image"))?;
    fs::copy(&programs.guest, folder.join("image/hello.wasm")).map_err(LoadError::io("copy the guest"))?;
    write(
        &folder.join("image/appimage.toml"),
        "[app]\nname = \"hello\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"web\"\ncomponent = \"hello.wasm\"\n",
    )?;
    write(&folder.join("hello.yaml"), deployment)?;
    let tool =
        |arguments: &[&str]| run(Command::new(&programs.appimage_tool).args(arguments).current_dir(&folder));
    tool(&["pack", "image", "--out", "hello.aimg"])?;
    tool(&["keygen", "--out", "key"])?;
    tool(&["sign", "hello.aimg", "--key", "key"])?;

    let (program, at) = (programs.hvm.clone(), folder.clone());
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let dev = move |ingress: SocketAddr, api: SocketAddr| {
        let mut command = Command::new(&program);
        command.current_dir(&at).args(["dev", "--data", "data", "--trust", "key.pub"]);
        command.args(["--ingress", &ingress.to_string(), "--api", &api.to_string()]).args(&flags);
        command
    };
    let (ingress, api) = (free_address()?, free_address()?);
    let mut server = Server::spawn(dev(ingress, api), ingress, &log)?;
    let hvm = |arguments: &[&str]| {
        run(Command::new(&programs.hvm).args(arguments).current_dir(&folder).env("HVM_API", api.to_string()))
    };
    while hvm(&["status"]).is_err() {
        server.check_alive()?;
        thread::sleep(Duration::from_millis(20));
    }
    hvm(&["deploy", "hello.yaml", "--timeout", "600"])?;
    drop(server);
    let make = move |address| Ok(dev(address, free_address()?));
    Ok(Contestant { name, make: Box::new(make), log })
}

fn run(command: &mut Command) -> Result<(), LoadError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(LoadError::io(format!("run {program}")))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(LoadError::new(format!("{program} failed: {said}")))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), LoadError> {
    fs::write(path, text).map_err(LoadError::io(format!("write {}", path.display())))
}
