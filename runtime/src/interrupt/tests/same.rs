//! Programs without pattern compute what they computed before: the same results, the same traps, the same memory.

use wasmtime::{Engine, Linker, Module, Val};

use super::{assemble, engine, interruptible, store};

/// Programs that are tried.
const PROGRAMS: u64 = 200;
/// Fuel for one of them: many loop without end.
const FUEL: u64 = 20_000;

/// Numbers without pattern from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Writes a function of statements that leave nothing on the stack, with labels to branch to.
struct Writer {
    dice: Dice,
    /// Of each open label, whether it is a loop's; the innermost last.
    labels: usize,
    text: String,
}

impl Writer {
    fn expression(&mut self, depth: u64) -> String {
        match self.dice.roll(if depth == 0 { 2 } else { 7 }) {
            0 => format!("(i32.const {})", self.dice.roll(9)),
            1 => format!("(local.get {})", self.dice.roll(4)),
            2 => format!("(i32.add {} {})", self.expression(depth - 1), self.expression(depth - 1)),
            3 => format!("(i32.sub {} {})", self.expression(depth - 1), self.expression(depth - 1)),
            4 => format!("(i32.load8_u (i32.and {} (i32.const 1023)))", self.expression(depth - 1)),
            5 => format!("(i32.rem_u {} {})", self.expression(depth - 1), self.expression(depth - 1)),
            _ => format!("(i32.eqz {})", self.expression(depth - 1)),
        }
    }

    fn statements(&mut self, depth: u64) {
        for _ in 0..=self.dice.roll(4) {
            self.statement(depth);
        }
    }

    fn block(&mut self, head: &str, depth: u64) {
        self.text += head;
        self.labels += 1;
        self.statements(depth - 1);
        self.labels -= 1;
        self.text += " end ";
    }

    fn statement(&mut self, depth: u64) {
        let value = self.expression(2);
        let label = self.dice.roll(self.labels as u64 + 1);
        match self.dice.roll(if depth == 0 { 8 } else { 13 }) {
            0 => self.text += &format!("(local.set {} {value})", self.dice.roll(4)),
            1 => self.text += &format!("(i32.store8 (i32.and {value} (i32.const 1023)) (local.get 0))"),
            2 | 3 => self.text += &format!("(br_if {label} {value})"),
            4 if self.dice.roll(3) == 0 => self.text += &format!("(br {label})"),
            5 if self.labels > 0 => {
                let other = self.dice.roll(self.labels as u64);
                self.text += &format!("(br_table {label} {other} {label} {value})");
            }
            6 => self.text += &format!("(local.set 1 (call $f (i32.const 0) {value}))"),
            7 => {
                self.text +=
                    &format!("(memory.fill (i32.const 9) {value} (i32.and (local.get 2) (i32.const 255)))")
            }
            8 | 9 => self.block(" loop ", depth),
            10 => self.block(" block ", depth),
            11 => {
                self.text += &format!(
                    "{value} (loop (param i32) (local.set 3) (br_if 0 {value} (i32.eqz (local.get 0))) drop)"
                );
            }
            12 => {
                self.text += &format!("{value} if ");
                self.labels += 1;
                self.statements(depth - 1);
                self.text += " else ";
                self.statements(depth - 1);
                self.labels -= 1;
                self.text += " end ";
            }
            _ => self.text += " nop ",
        }
    }
}

fn program(seed: u64) -> String {
    let mut functions = String::new();
    for (name, export) in [("f", ""), ("g", "(export \"run\")")] {
        let dice = Dice(
            seed.wrapping_mul(2).wrapping_add(u64::from(name == "f")).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let mut writer = Writer { dice, labels: 0, text: String::new() };
        // The body is a block, so that a branch to the outermost label needs no value.
        writer.statements(4);
        functions += &format!(
            "(func ${name} {export} (param i32 i32) (result i32) (local i32 i32) (block {}) (local.get 1))",
            writer.text
        );
    }
    format!("(module (memory (export \"m\") 1) {functions})")
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Result(i32, Vec<u8>),
    Trap(wasmtime::Trap),
}

fn run(engine: &Engine, wasm: &[u8], fuel: u64) -> Outcome {
    let mut store = store(engine, u64::MAX);
    let module = Module::new(engine, wasm).expect("a valid module");
    let instance = Linker::new(engine).instantiate(&mut store, &module).expect("it starts");
    store.set_fuel(fuel).expect("fuel is counted");
    let mut results = [Val::I32(0)];
    let run = instance.get_func(&mut store, "run").expect("exported");
    match run.call(&mut store, &[Val::I32(1), Val::I32(2)], &mut results) {
        Ok(()) => {
            let memory = instance.get_memory(&mut store, "m").expect("exported").data(&store).to_vec();
            Outcome::Result(results[0].unwrap_i32(), memory)
        }
        Err(error) => Outcome::Trap(*error.downcast_ref().expect("a trap")),
    }
}

#[test]
fn programs_without_pattern_do_what_they_did() {
    let engine = engine();
    let mut ended = 0;
    for seed in 0..PROGRAMS {
        let wasm = assemble(&program(seed));
        let before = run(&engine, &wasm, FUEL);
        let rewritten = interruptible(&wasm).expect("interruptible");
        wasmparser::Validator::new().validate_all(&rewritten).expect("valid");
        // Counting costs fuel too; what had enough before has enough with tenfold.
        let after = run(&engine, &rewritten, FUEL * 100);
        // How deep a recursion gets depends on the size of a frame.
        let depends = [wasmtime::Trap::OutOfFuel, wasmtime::Trap::StackOverflow].map(Outcome::Trap);
        if !depends.contains(&before) {
            assert_eq!(before, after, "seed {seed}: {}", program(seed));
            ended += 1;
        }
    }
    assert!(ended > PROGRAMS / 4, "only {ended} of {PROGRAMS} programs ended: they show little");
}
