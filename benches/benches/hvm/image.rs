//! From a signed image to its first answer: verify, compile (or load what was compiled before), open, ask. The floor
//! compiles the same component in bare wasmtime and asks an instance of it.

use std::cell::LazyCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use guests_path::Guest;
use http::{Method, StatusCode};
use hvm_appimage::{
    ImageBuilder, KeyAlgorithm, PackageContent, SigningKey, TrustPolicy, UnverifiedImage, sign_file,
};
use hvm_benches::SUBJECT;
use hvm_runtime::{Hvm, PartitionSpec};
use hvm_types::PackageName;

use crate::bed::{self, Bed, Question};
use hvm_benches::bare::Bare;
use hvm_benches::disk;

/// An iteration takes some tenths of a second.
const SAMPLES: usize = 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let image = LazyCell::new(SignedImage::new);
    let hello = Question::new(Method::GET, "/", StatusCode::OK);
    let mut group = criterion.benchmark_group("signed image to first answer, not compiled yet");
    group.sampling_mode(SamplingMode::Flat).sample_size(SAMPLES);
    group.bench_function(SUBJECT, |bencher| {
        bencher.iter_custom(|iterations| {
            // Each time a new HVM, whose cache is empty; starting it is not measured.
            (0..iterations).map(|_| image.first_answer(&Bed::new(1), &hello)).sum()
        });
    });
    let executor = bed::executor();
    group.bench_function("bare wasmtime: compile, instantiate, ask", |bencher| {
        bencher.iter_custom(|iterations| {
            let bare = Bare::new(1);
            let component = bed::component(Guest::Hello);
            let began = Instant::now();
            for _ in 0..iterations {
                let module = bare.compile(&component);
                executor.block_on(async { hello.ask_bare(&mut module.instantiate().await).await });
            }
            began.elapsed()
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("signed image to first answer, compiled before");
    let bed = LazyCell::new(|| {
        let bed = Bed::new(1);
        image.first_answer(&bed, &hello);
        bed
    });
    group.bench_function(SUBJECT, |bencher| {
        // Closing the partition drops the module: the next one is loaded from the cache on disk.
        bencher.iter_custom(|iterations| (0..iterations).map(|_| image.first_answer(&bed, &hello)).sum());
    });
    group.finish();
}

/// `hello` as its author hands it out, and whom to trust.
struct SignedImage {
    path: PathBuf,
    policy: TrustPolicy,
    package: PackageName,
    _folder: tempfile::TempDir,
}

impl SignedImage {
    fn new() -> Self {
        let folder = disk::folder();
        let path = folder.path().join("hello.aimg");
        let package: PackageName = "web".parse().expect("a valid name");
        let content =
            PackageContent { component: bed::component(Guest::Hello).to_vec(), ..Default::default() };
        let builder =
            ImageBuilder::new("hello".parse().expect("a valid name"), semver::Version::new(1, 0, 0));
        let builder = builder.package(package.clone(), content).expect("hello needs no capability");
        builder.write_file(&path).expect("room on the disk");
        let key = SigningKey::generate(KeyAlgorithm::EcdsaP256).expect("the system has randomness");
        sign_file(&path, &key).expect("a whole image");
        Self { path, policy: TrustPolicy::of_key(key.public().clone()), package, _folder: folder }
    }

    /// How long it takes until the image's first answer. The partition is gone afterwards.
    fn first_answer(&self, bed: &Bed, question: &Question) -> Duration {
        let id = bed::replica(0);
        let began = Instant::now();
        let component = verified_component(&self.path, &self.policy, &self.package);
        let hvm: &Hvm = &bed.hvm;
        let took = bed.executor.block_on(async {
            let module = hvm.compile(component.into()).await.expect("hello compiles");
            let spec = PartitionSpec { stateful: false, ..PartitionSpec::new(id.clone(), module) };
            hvm.open(spec).await.expect("room for one replica");
            question.ask(hvm, &id).await;
            began.elapsed()
        });
        bed.executor.block_on(hvm.close(&id)).expect("it is open");
        took
    }
}

fn verified_component(path: &Path, policy: &TrustPolicy, package: &PackageName) -> Vec<u8> {
    let image = UnverifiedImage::open_file(path).expect("a whole image");
    let image = image.verify(policy).expect("signed by the trusted key");
    image.component(package).expect("its package")
}
