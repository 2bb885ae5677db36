//! Bulk operations in pieces do what they do at once: the same bytes, the same traps, and nothing before a trap.

use wasmtime::{Linker, Module, Store, Val};

use super::{Ticks, assemble, engine, interruptible, store};

const PIECE: u32 = super::super::price::PIECE_BYTES.unsigned_abs();
const MEMORY: u32 = 16 << 16;

/// Two memories of 16 pages, one of them with 64-bit addresses, a long and a short segment, two tables.
const MODULE: &str = r#"(module
  (memory (export "m") 16) (memory $w (export "w") i64 16)
  (table $t (export "t") 100 funcref) (table $u i64 100 funcref)
  (elem $e func $f $f $f) (func $f)
  (data $d "DATA")
  (func (export "number") (param i32 i32)
    (loop (i32.store8 (local.get 0) (i32.mul (local.get 0) (local.get 1)))
      (i64.store8 $w (i64.extend_i32_u (local.get 0)) (i64.extend_i32_u (i32.mul (local.get 0) (i32.const 7))))
      (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1048576)))))
  (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
  (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
  (func (export "across") (param i32 i32 i32)
    (memory.copy $w 0 (i64.extend_i32_u (local.get 0)) (local.get 1) (local.get 2)))
  (func (export "fill64") (param i32 i32 i32)
    (memory.fill $w (i64.extend_i32_s (local.get 0)) (local.get 1) (i64.extend_i32_s (local.get 2))))
  (func (export "copy64") (param i32 i32 i32)
    (memory.copy $w $w (i64.extend_i32_u (local.get 0)) (i64.extend_i32_u (local.get 1)) (i64.extend_i32_u (local.get 2))))
  (func (export "init") (param i32 i32 i32) (memory.init $d (local.get 0) (local.get 1) (local.get 2)))
  (func (export "drop") (param i32 i32 i32) (data.drop $d))
  (func (export "table-fill") (param i32 i32 i32) (table.fill $t (local.get 0) (ref.func $f) (local.get 2)))
  (func (export "table-fill64") (param i32 i32 i32)
    (table.fill $u (i64.extend_i32_s (local.get 0)) (ref.func $f) (i64.extend_i32_s (local.get 2))))
  (func (export "table-copy") (param i32 i32 i32) (table.copy $t $t (local.get 0) (local.get 1) (local.get 2)))
  (func (export "table-init") (param i32 i32 i32) (table.init $t $e (local.get 0) (local.get 1) (local.get 2)))
)"#;

struct Guest {
    store: Store<Ticks>,
    instance: wasmtime::Instance,
}

impl Guest {
    fn start(wasm: &[u8]) -> Self {
        let engine = engine();
        let mut store = store(&engine, u64::MAX);
        let module = Module::new(&engine, wasm).expect("a valid module");
        let instance = Linker::new(&engine).instantiate(&mut store, &module).expect("it starts");
        let mut guest = Self { store, instance };
        guest.call("number", &[Val::I32(0), Val::I32(13)]).expect("it ends");
        guest
    }

    fn call(&mut self, name: &str, arguments: &[Val]) -> Result<(), wasmtime::Trap> {
        let function = self.instance.get_func(&mut self.store, name).expect("exported");
        function
            .call(&mut self.store, arguments, &mut [])
            .map_err(|error| *error.downcast_ref::<wasmtime::Trap>().expect("a trap"))
    }

    fn memory(&mut self, name: &str) -> Vec<u8> {
        let memory = self.instance.get_memory(&mut self.store, name).expect("exported");
        memory.data(&self.store).to_vec()
    }

    fn table(&mut self) -> Vec<bool> {
        let table = self.instance.get_table(&mut self.store, "t").expect("exported");
        (0..100).map(|at| table.get(&mut self.store, at).is_some_and(|element| element.is_null())).collect()
    }
}

#[test]
fn operations_in_pieces_change_what_they_changed_at_once() {
    let wasm = assemble(MODULE);
    let (mut before, mut after) =
        (Guest::start(&wasm), Guest::start(&interruptible(&wasm).expect("interruptible")));
    let edges = [
        0,
        1,
        5,
        PIECE - 1,
        PIECE,
        PIECE + 1,
        3 * PIECE + 17,
        MEMORY / 2,
        MEMORY - 1,
        MEMORY,
        MEMORY + 1,
        u32::MAX,
    ];
    for name in ["fill", "copy", "across", "fill64", "copy64", "init"] {
        for to in edges {
            for from in [0, 3, PIECE + 5, MEMORY / 2, u32::MAX] {
                for length in edges {
                    let arguments = [to, from, length].map(|value| Val::I32(value.cast_signed()));
                    let (was, is) = (before.call(name, &arguments), after.call(name, &arguments));
                    assert_eq!(was, is, "{name} {to} {from} {length}");
                }
            }
            for memory in ["m", "w"] {
                assert!(
                    before.memory(memory) == after.memory(memory),
                    "{name} {to} left another memory {memory}"
                );
            }
        }
    }
}

#[test]
fn operations_on_tables_change_what_they_changed() {
    let wasm = assemble(MODULE);
    let (mut before, mut after) =
        (Guest::start(&wasm), Guest::start(&interruptible(&wasm).expect("interruptible")));
    for name in ["table-init", "table-copy", "table-fill", "table-fill64", "drop", "init"] {
        for to in [0, 1, 50, 99, 100, 101, u32::MAX] {
            for (from, length) in [(0, 0), (0, 1), (0, 3), (1, 3), (3, 0), (4, 0), (0, 60), (0, u32::MAX)] {
                let arguments = [to, from, length].map(|value| Val::I32(value.cast_signed()));
                let (was, is) = (before.call(name, &arguments), after.call(name, &arguments));
                assert_eq!(was, is, "{name} {to} {from} {length}");
                assert_eq!(before.table(), after.table(), "{name} {to} {from} {length}");
            }
        }
    }
}
