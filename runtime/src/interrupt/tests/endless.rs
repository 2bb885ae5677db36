//! Everything that can run long is asked, and asked often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use wasmtime::{Linker, Module};

use super::super::{interruptible, price};
use super::{FUEL, LastTick, assemble, engine, start, store};

/// Ticks after which a guest is ended.
const TICKS: u64 = 5;

/// Runs `run`, which must not end by itself, and checks how much it did between two ticks.
fn check(name: &str, text: &str) {
    let engine = engine();
    let mut store = store(&engine, TICKS);
    let ended = start(&mut store, &assemble(text)).and_then(|instance| {
        let run = instance.get_typed_func::<(), ()>(&mut store, "run")?;
        run.call(&mut store, ())
    });
    let error = ended.expect_err(name);
    assert!(error.is::<LastTick>(), "{name} ended by itself: {error:?}");
    // Fuel also counts the elements that a tick asks for, but not of the last.
    let asked = (TICKS - 1) * u64::from(price::TICK_GROWTH);
    let instructions = (FUEL - store.get_fuel().expect("fuel is counted") - asked) / TICKS;
    // One charge stands for eight or nine instructions, or for four bytes; fuel also counts what counting adds.
    let most = u64::from(price::BUDGET.unsigned_abs()) * 20;
    assert!(instructions <= most, "{name}: {instructions} instructions between two ticks");
}

fn function(body: &str) -> String {
    format!("(module (memory 1) (func (export \"run\") (local $i i32) {body}))")
}

#[test]
fn loops_of_every_shape_are_asked() {
    for (name, body) in [
        ("a bare loop", "(loop br 0)"),
        ("a loop with a condition", "(loop (br_if 0 (i32.const 1)))"),
        ("a loop of nothing in a loop", "(loop (loop (br_if 0 (i32.const 0))) br 0)"),
        ("an inner loop that goes to the outer", "(loop (loop br 1))"),
        ("a loop by table", "(loop (br_table 0 0 0 (local.get $i)))"),
        (
            "a machine by table",
            "(loop $l (block $b (block $a (br_table $a $b $l (i32.and (local.get $i) (i32.const 3))))
               (local.set $i (i32.const 1)) (br $l)) (local.set $i (i32.const 0)) (br $l))",
        ),
        ("a loop that takes a value", "(i32.const 1) (loop (param i32) (br 0))"),
        ("a loop in a condition", "(if (i32.const 1) (then (loop br 0)) (else (loop br 0)))"),
        ("a loop after code that nothing reaches", "(block br 0 (loop br 0)) (loop br 0)"),
        ("a way back from deep inside", "(loop $l (block (block (if (i32.const 1) (then (br $l))))))"),
        ("a loop that fills", "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) br 0)"),
        ("a loop that grows", "(loop (drop (memory.grow (i32.const 0))) br 0)"),
        (
            "a loop with a short fill",
            "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 4096)) br 0)",
        ),
    ] {
        check(name, &function(body));
    }
}

#[test]
fn a_loop_of_short_calls_is_asked() {
    check(
        "short calls",
        r#"(module
          (func $leaf (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
          (func $some (param i32) (result i32) (call $leaf (call $leaf (local.get 0))))
          (func (export "run") (loop (drop (call $some (i32.const 1))) br 0)))"#,
    );
    check(
        "calls of a loop that is short each time",
        r#"(module
          (func $short (local $i i32)
            (loop (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if 0 (i32.lt_u (local.get $i) (i32.const 9)))))
          (func (export "run") (loop (call $short) (call $short) br 0)))"#,
    );
}

#[test]
fn calls_without_loops_are_asked() {
    // Each function calls the next one twice: two to the power of forty calls, without recursion.
    let mut tower = String::from("(module ");
    for level in 0..40 {
        tower += &format!("(func $f{level} (call $f{next}) (call $f{next}))", next = level + 1);
    }
    tower += "(func $f40) (func (export \"run\") (call $f0)))";
    check("a tower of calls", &tower);

    // The same through a table.
    let mut table = String::from("(module (type $t (func)) (table funcref (elem ");
    (0..41).for_each(|level| table += &format!("$f{level} "));
    table += "))";
    for level in 0..40 {
        let call = format!("(call_indirect (type $t) (i32.const {}))", level + 1);
        table += &format!("(func $f{level} {call} {call})");
    }
    table += "(func $f40) (func (export \"run\") (call $f0)))";
    check("a tower of calls through a table", &table);

    check(
        "recursion that comes back",
        r#"(module
          (func $f (param i32)
            (if (local.get 0) (then
              (call $f (i32.sub (local.get 0) (i32.const 1)))
              (call $f (i32.sub (local.get 0) (i32.const 1))))))
          (func (export "run") (call $f (i32.const 60))))"#,
    );
    check(
        "recursion of two",
        r#"(module
          (func $f (param i32) (if (local.get 0) (then (call $g (local.get 0)) (call $g (local.get 0)))))
          (func $g (param i32) (call $f (i32.sub (local.get 0) (i32.const 1))))
          (func (export "run") (call $f (i32.const 60))))"#,
    );
}

#[test]
fn tail_calls_are_asked() {
    check("a tail call of itself", r#"(module (func (export "run") (return_call 0)))"#);
    check(
        "tail calls in a circle",
        r#"(module (func $a (export "run") (return_call $b)) (func $b (return_call $a)))"#,
    );
    check(
        "tail calls through a table",
        r#"(module (type $t (func)) (table funcref (elem $f))
          (func $f (export "run") (return_call_indirect (type $t) (i32.const 0))))"#,
    );
}

#[test]
fn what_runs_at_the_start_is_asked() {
    check("a start function", r#"(module (func $s (loop br 0)) (start $s) (func (export "run")))"#);
}

#[test]
fn operations_on_tables_are_asked() {
    check(
        "a loop that fills a table",
        r#"(module (table $t 60000 funcref)
          (func (export "run")
            (loop (table.fill $t (i32.const 0) (ref.null func) (i32.const 60000)) br 0)))"#,
    );
}

#[test]
fn one_fill_of_a_large_memory_is_asked_on_its_way() {
    let engine = engine();
    let mut store = store(&engine, 3);
    let wasm = assemble(
        r#"(module (memory 1024) (func (export "run")
          (memory.fill (i32.const 0) (i32.const 7) (i32.const 67108864))
          (memory.copy (i32.const 0) (i32.const 4096) (i32.const 67104768))))"#,
    );
    let instance = start(&mut store, &wasm).expect("it starts");
    let run = instance.get_typed_func::<(), ()>(&mut store, "run").expect("exported");
    let error = run.call(&mut store, ()).expect_err("ended at the last tick");
    assert!(error.is::<LastTick>(), "{error:?}");
}

#[test]
fn calls_of_the_host_are_asked_long_before_as_many_instructions() {
    let engine = engine();
    let mut store = store(&engine, TICKS);
    let wasm =
        assemble(r#"(module (import "host" "f" (func $f)) (func (export "run") (loop (call $f) (br 0))))"#);
    let module = Module::new(&engine, interruptible(&wasm).expect("it can be")).expect("valid");
    let calls = Arc::new(AtomicU64::new(0));
    let mut linker = Linker::new(&engine);
    let counted = Arc::clone(&calls);
    linker.func_wrap("host", "f", move || _ = counted.fetch_add(1, Relaxed)).expect("a new name");
    let instance = linker.instantiate(&mut store, &module).expect("it starts");
    let run = instance.get_typed_func::<(), ()>(&mut store, "run").expect("exported");
    let error = run.call(&mut store, ()).expect_err("ended at the last tick");
    assert!(error.is::<LastTick>(), "{error:?}");
    // At a fifth of a microsecond each that is a tenth of a millisecond.
    let each = calls.load(Relaxed) / TICKS;
    assert!((100..600).contains(&each), "{each} calls between two ticks");
}
