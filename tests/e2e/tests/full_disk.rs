//! A disk that is full while commands arrive. Needs the right to mount a small file system in a namespace
//! of its own; where the system gives no such right, the test fails and says so.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Client, Daemon, Role, Workshop, eventually};

const DISK_MIB: u64 = 160;

/// A mounted file system of a fixed size.
struct SmallDisk<'a> {
    path: &'a Path,
}

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        fs::create_dir_all(path).expect("a mount point");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_MIB}m"), "hvm-test"])
            .arg(path)
            .status()
            .expect("mount can be started");
        assert!(mounted.success(), "this test mounts a small tmpfs and needs the right to do so (root)");
        Self { path }
    }

    /// Takes all that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.path.join("ballast")).expect("a file");
        let block = vec![0_u8; 1 << 20];
        while file.write_all(&block).is_ok() {}
        let _ = file.write_all(&block[..4096]);
    }

    fn empty(&self) {
        fs::remove_file(self.path.join("ballast")).expect("the ballast");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path).status();
    }
}

#[test]
fn a_full_disk_refuses_commands_answers_queries_and_recovers_by_itself() {
    let workshop = Workshop::new();
    let mount_point = workshop.path("disk");
    let disk = SmallDisk::mount(&mount_point);
    let file = workshop.ledger();
    let server = Daemon::start(&Role::Dev { trust: workshop.trust() }, &mount_point.join("data"));
    server.deploy(&file);

    let client = Client::new();
    let transfer = || {
        let body = r#"{"from": "bank", "to": "alice", "amount": 1}"#;
        client.post(&format!("{}/books/one/transfers", server.ingress), &[], body).expect("an answer")
    };
    let balance = || {
        let url = format!("{}/books/one/accounts/alice", server.ingress);
        let account = client.get(&url).expect("an answer").ok();
        serde_json::from_str::<serde_json::Value>(&account).expect("JSON")["balance"].as_u64()
    };
    assert!(transfer().status.is_success());
    disk.fill();
    let refused = eventually("commands are refused", || {
        let answer = transfer();
        if answer.status.is_success() { Err("still accepted".to_owned()) } else { Ok(answer) }
    });
    assert_eq!(refused.status, 507, "{}", refused.body);
    let known = balance();
    assert_eq!(transfer().status, 507);
    assert_eq!(balance(), known, "queries go on, and a refused command leaves nothing");
    disk.empty();
    eventually("commands are accepted again", || {
        let answer = transfer();
        if answer.status.is_success() { Ok(()) } else { Err(answer.body) }
    });
    assert_eq!(balance(), known.map(|before| before + 1));
    drop(server);
}
