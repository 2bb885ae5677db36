//! Guests that would keep their worker for as long as they can, and how long they do: the processor time between two
//! looks at the clock, which is what a neighbour or a deadline waits beside the turn itself.

use std::io::Write;
use std::time::{Duration, Instant};

use hvm_runtime::interrupt::interruptible;
use wasmtime::{Config, Engine, Instance, Module, ResourceLimiterAsync, Store};

/// How long each is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// What runs without end, or for very long, by its name.
const HOSTILE: [(&str, &str); 9] = [
    ("a loop of nothing", r#"(func (export "run") (loop br 0))"#),
    (
        "a loop of divisions",
        r#"(func (export "run") (local i64) (local.set 0 (i64.const -1))
        (loop (local.set 0 (i64.div_u (local.get 0) (i64.or (local.get 0) (i64.const 1))))
          (local.set 0 (i64.sub (i64.const 0) (local.get 0))) br 0))"#,
    ),
    (
        "cache misses",
        r#"(func (export "run") (local $at i32)
        (loop (local.set $at (i32.and (i32.const 0x0fffffc0) (i32.add
          (i32.mul (local.get $at) (i32.const 1664525))
          (i32.add (i32.const 1013904223) (i32.load (local.get $at)))))) br 0))"#,
    ),
    (
        "a new page each time",
        r#"(func (export "run") (local $at i32)
        (loop (i32.store (local.get $at) (i32.const 1))
          (local.set $at (i32.and (i32.const 0x3fffffff) (i32.add (local.get $at) (i32.const 4096)))) br 0))"#,
    ),
    (
        "fills of the whole memory",
        r#"(func (export "run")
        (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x40000000)) br 0))"#,
    ),
    (
        "copies of half the memory",
        r#"(func (export "run")
        (loop (memory.copy (i32.const 1) (i32.const 0) (i32.const 0x20000000)) br 0))"#,
    ),
    ("a tower of calls", "TOWER"),
    (
        "recursion",
        r#"(func $f (param i32)
          (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1)))
            (call $f (i32.sub (local.get 0) (i32.const 1))))))
        (func (export "run") (call $f (i32.const 60)))"#,
    ),
    ("growth of nothing", r#"(func (export "run") (loop (drop (memory.grow (i32.const 0))) br 0))"#),
];

/// Forty functions, of which each calls the next one twice.
fn tower() -> String {
    let levels = (0..40).map(|at| format!("(func $f{at} (call $f{next}) (call $f{next}))", next = at + 1));
    levels.collect::<String>() + r#"(func $f40) (func (export "run") (call $f0))"#
}

/// Notes when the guest asks, and ends it after a while.
struct Watch {
    began: Instant,
    last: Duration,
    between: Vec<Duration>,
}

#[async_trait::async_trait]
impl ResourceLimiterAsync for Watch {
    async fn memory_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }

    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired - current != u32::MAX as usize {
            return Ok(true);
        }
        self.between.push(crate::cpu().saturating_sub(self.last));
        if self.began.elapsed() >= WATCHED {
            return Err(wasmtime::format_err!("watched for long enough"));
        }
        self.last = crate::cpu();
        Ok(false)
    }
}

async fn watch(text: &str) -> anyhow::Result<Vec<Duration>> {
    let mut config = Config::new();
    config.wasm_branch_hinting(true);
    let engine = Engine::new(&config)?;
    let wasm = wat::parse_str(format!("(module (memory 16384) {text})"))?;
    let module = Module::new(&engine, interruptible(&wasm)?)?;
    let watch = Watch { began: Instant::now(), last: crate::cpu(), between: Vec::new() };
    let mut store = Store::new(&engine, watch);
    store.limiter_async(|watch| watch);
    let instance = Instance::new_async(&mut store, &module, &[]).await?;
    let run = instance.get_typed_func::<(), ()>(&mut store, "run")?;
    store.data_mut().last = crate::cpu();
    let ended = run.call_async(&mut store, ()).await;
    anyhow::ensure!(ended.is_err(), "it ended by itself");
    let mut between = std::mem::take(&mut store.data_mut().between);
    between.sort_unstable();
    Ok(between)
}

/// Watches all of them and prints a table.
pub(crate) fn print(out: &mut impl Write) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_current_thread().build()?;
    writeln!(
        out,
        "\n| Hostile guest | looks at the clock | median between two | 99 of 100 | longest |\n|---|--:|--:|--:|--:|"
    )?;
    for (name, text) in HOSTILE {
        let text = if text == "TOWER" { tower() } else { text.to_owned() };
        let between = executor.block_on(watch(&text))?;
        let at = |part: usize| between[(between.len() - 1) * part / 100].as_secs_f64() * 1e3;
        writeln!(
            out,
            "| {name} | {} | {:.3} ms | {:.3} ms | {:.3} ms |",
            between.len(),
            at(50),
            at(99),
            at(100)
        )?;
    }
    Ok(())
}
