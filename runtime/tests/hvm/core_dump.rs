//! Core dumps on request: what is in them, read with other people's reader; and that nobody's guest is dumped unasked.

use std::time::Duration;

use guests_path::Guest;
use http::Method;
use hvm_runtime::{Call, CoreDumpError, LogSource, PartitionSpec, RequestError, Trap};
use hvm_types::{ByteSize, CpuMhz, Period};
use wasmparser::{
    CoreDumpInstancesSection, CoreDumpModulesSection, CoreDumpSection, CoreDumpStackSection, DataKind,
    KnownCustom, Operator, Parser, Payload, Validator,
};

use super::bed::{Bed, PATIENCE, first, id};

/// What a dump holds, by its sections.
#[derive(Default)]
struct Contents {
    name: String,
    modules: usize,
    instances: Vec<u32>,
    /// Of each frame, the instance and the function.
    frames: Vec<(u32, u32)>,
    stopped: String,
    memories: Vec<Vec<u8>>,
}

impl Contents {
    fn read(dump: &[u8]) -> Self {
        Validator::new().validate_all(dump).expect("a dump is a module");
        let mut contents = Self::default();
        for payload in Parser::new(0).parse_all(dump) {
            match payload.expect("valid") {
                Payload::MemorySection(memories) => {
                    let pages = memories.into_iter().map(|memory| memory.expect("valid").initial);
                    contents.memories =
                        pages.map(|pages| vec![0; usize::try_from(pages << 16).expect("it fits")]).collect();
                }
                Payload::DataSection(pieces) => {
                    for piece in pieces {
                        contents.write(&piece.expect("valid"));
                    }
                }
                Payload::CustomSection(section) => contents.custom(&section),
                _ => {}
            }
        }
        contents
    }

    fn write(&mut self, piece: &wasmparser::Data<'_>) {
        let DataKind::Active { memory_index, offset_expr } = &piece.kind else {
            panic!("a piece without place")
        };
        let mut offset = offset_expr.get_operators_reader();
        let Ok(Operator::I32Const { value }) = offset.read() else { panic!("a place that is no number") };
        let from = usize::try_from(value.cast_unsigned()).expect("it fits");
        let memory = &mut self.memories[usize::try_from(*memory_index).expect("it fits")];
        memory[from..from + piece.data.len()].copy_from_slice(piece.data);
    }

    fn custom(&mut self, section: &wasmparser::CustomSectionReader<'_>) {
        match section.as_known() {
            KnownCustom::CoreDump(CoreDumpSection { name }) => self.name = name.to_owned(),
            KnownCustom::CoreDumpModules(CoreDumpModulesSection { modules }) => self.modules = modules.len(),
            KnownCustom::CoreDumpInstances(CoreDumpInstancesSection { instances }) => {
                self.instances = instances.iter().map(|instance| instance.module_index).collect();
            }
            KnownCustom::CoreDumpStack(CoreDumpStackSection { frames, .. }) => {
                self.frames = frames.iter().map(|frame| (frame.instanceidx, frame.funcidx)).collect();
            }
            _ if section.name() == "hvm-stopped" => {
                self.stopped = String::from_utf8(section.data().to_vec()).expect("text");
            }
            _ => panic!("an unknown section {}", section.name()),
        }
    }

    fn memory_holds(&self, text: &str) -> bool {
        let found = |memory: &Vec<u8>| memory.windows(text.len()).any(|window| window == text.as_bytes());
        self.memories.iter().any(found)
    }
}

async fn within_patience<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes before patience ends")
}

fn dumps_logged(bed: &Bed) -> usize {
    let lines = bed.lines.all();
    lines.iter().filter(|l| l.source == LogSource::Hvm && l.text.contains("core dump of")).count()
}

#[tokio::test]
async fn a_trap_that_somebody_waits_for_gives_stack_and_memory_in_the_common_format() {
    let bed = Bed::with_probe().await;
    bed.get("/").await.expect("the first request");
    let wait = bed.hvm.core_dump(&first(), None).expect("nobody else waits");
    bed.get("/trap?kind=divide&note=what-only-the-guest-knows").await.expect_err("trapped");
    let dump = within_patience(wait.wait()).await.expect("a dump");
    assert_eq!((&dump.id, dump.request.as_str()), (&first(), "request 2 (GET /trap)"));
    assert!(
        matches!(&dump.trap, Trap::Wasm { reason } if reason.contains("divide by zero")),
        "{:?}",
        dump.trap
    );
    assert!(dump.frames.iter().any(|frame| frame.contains("probe::fault::trap")), "{:?}", dump.frames);

    let contents = Contents::read(&dump.bytes);
    assert_eq!(contents.name, "test/probe/0");
    assert!(contents.frames.len() > 1, "{:?}", contents.frames);
    for (instance, _) in &contents.frames {
        let module = contents.instances[usize::try_from(*instance).expect("it fits")];
        assert!(usize::try_from(module).expect("it fits") < contents.modules);
    }
    assert!(contents.memory_holds("what-only-the-guest-knows"));
    for told in
        ["partition test/probe/0\n", "request 2 (GET /trap)\n", "divide by zero", "probe::fault::trap"]
    {
        assert!(contents.stopped.contains(told), "no `{told}`: {}", contents.stopped);
    }
    assert!(!contents.stopped.contains("what-only-the-guest-knows"));
    assert_eq!(dumps_logged(&bed), 1, "the log says who looked");
    assert_eq!(bed.get("/").await.expect("a new instance").status(), 200);
}

#[tokio::test]
async fn nobody_is_dumped_unasked_and_one_asks_at_a_time() {
    let bed = Bed::with_probe().await;
    bed.get("/trap").await.expect_err("trapped");
    let wait = bed.hvm.core_dump(&first(), Some(Duration::from_millis(1))).expect("nobody else waits");
    let busy = bed.hvm.core_dump(&first(), None).expect_err("one waits");
    assert_eq!(busy, CoreDumpError::Busy { id: first() });
    drop(wait);
    assert_eq!(bed.get("/spin?n=100000000").await.expect("nobody waits any more").status(), 200);
    bed.get("/trap").await.expect_err("trapped");
    assert_eq!(dumps_logged(&bed), 0);

    let other = bed.hvm.core_dump(&id("test/probe/9"), None).expect_err("it is not there");
    assert_eq!(other, CoreDumpError::Unknown { id: id("test/probe/9") });
    let wait = bed.hvm.core_dump(&first(), None).expect("nobody else waits");
    bed.hvm.close(&first()).await.expect("it closes");
    assert_eq!(wait.wait().await, Err(CoreDumpError::Gone { id: first() }));
}

#[tokio::test]
async fn a_guest_that_hangs_shows_where_by_its_deadline_or_sooner() {
    for (deadline, after) in [(PATIENCE, Some(Duration::from_millis(20))), (Duration::from_millis(200), None)]
    {
        let bed = Bed::with_hasty_probe(deadline).await;
        for method in [Method::GET, Method::POST] {
            let wait = bed.hvm.core_dump(&first(), after).expect("nobody else waits");
            let error = bed.ask(method, "/loop", "").await.expect_err("it never ends by itself");
            assert_eq!(error, RequestError::Trapped { trap: Trap::Dumped });
            assert_eq!(error.status().as_u16(), 504);
            let dump = within_patience(wait.wait()).await.expect("a dump");
            assert!(!Contents::read(&dump.bytes).frames.is_empty());
            assert!(dump.frames.iter().any(|frame| frame.contains("spin_forever")), "{:?}", dump.frames);
        }
    }
}

#[tokio::test]
async fn a_guest_that_waits_for_its_share_is_stopped_when_it_ran_for_as_long_as_asked() {
    const AFTER: Duration = Duration::from_millis(100);
    let bed = Bed::with(|config| config.cpu = CpuMhz(1_000));
    for guest in [Guest::Probe, Guest::Typed] {
        let mut spec = PartitionSpec::new(first(), bed.module(guest).await);
        spec.grants = super::bed::all_grants();
        spec.resources.cpu = Some(CpuMhz(50));
        spec.resources.deadline = Period(PATIENCE);
        bed.hvm.open(spec).await.expect("it opens");
        let wait = bed.hvm.core_dump(&first(), Some(AFTER)).expect("nobody else waits");
        match guest {
            Guest::Probe => drop(bed.get("/loop").await.expect_err("it never ends by itself")),
            _ => drop(
                bed.hvm.call(&first(), Call::query("loop", "")).await.expect_err("it never ends by itself"),
            ),
        }
        within_patience(wait.wait()).await.expect("a dump");
        bed.until(&first(), |status| status.doing.is_empty()).await;
        let used = bed.hvm.usage().partitions.remove(0).meter;
        assert!(used.wall >= AFTER, "it was stopped as one that hangs: {used:?}");
        bed.hvm.close(&first()).await.expect("it closes");
    }
}

#[tokio::test]
async fn a_typed_call_is_dumped_like_a_request() {
    let bed = Bed::new();
    let module = bed.module(Guest::Typed).await;
    let mut spec = PartitionSpec::new(first(), module);
    spec.grants = super::bed::all_grants();
    bed.hvm.open(spec).await.expect("it opens");
    for call in [Call::query("trap", ""), Call::command("set-then-trap", "x")] {
        let wait = bed.hvm.core_dump(&first(), None).expect("nobody else waits");
        bed.hvm.call(&first(), call).await.expect_err("trapped");
        let dump = within_patience(wait.wait()).await.expect("a dump");
        assert!(!Contents::read(&dump.bytes).frames.is_empty());
    }
}

#[tokio::test]
async fn a_guest_with_too_much_memory_is_not_dumped_and_who_asked_is_told() {
    let bed = Bed::new();
    bed.open(&first(), |spec| {
        spec.resources.memory = 600;
        spec.resources.deadline = Period(PATIENCE);
    })
    .await;
    bed.get("/alloc?mb=300").await.expect("it fits");
    let wait = bed.hvm.core_dump(&first(), None).expect("nobody else waits");
    bed.get("/trap").await.expect_err("trapped");
    match within_patience(wait.wait()).await {
        Err(CoreDumpError::TooLarge { memory, limit, .. }) => {
            assert_eq!(limit, ByteSize::mib(256));
            assert!(memory > limit, "{memory}");
        }
        other => panic!("{:?}", other.map(|dump| dump.bytes.len())),
    }
    assert_eq!(dumps_logged(&bed), 0);
}
