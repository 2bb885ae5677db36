//! `appimage-tool inspect`: what is in an image, for people and as JSON.

use std::path::Path;

use hvm_appimage::{Image, UnverifiedImage, imports_of};
use hvm_types::{Capability, Digest, PackageConfig, PackageName};
use serde::Serialize;

use super::size_text::size_text;
use crate::arguments::Inspect;
use crate::failure::Failure;

#[derive(Serialize)]
struct Report {
    app: String,
    version: String,
    digest: Digest,
    state_schema: u32,
    /// The oldest state schema that it migrates; `null` where it has no migration.
    migrates_from: Option<u32>,
    /// Size of all blobs together.
    size: u64,
    /// The keys that the signatures claim; `null` for one that names no key.
    claimed_signers: Vec<Option<String>>,
    packages: Vec<PackageReport>,
}

#[derive(Serialize)]
struct PackageReport {
    name: PackageName,
    component: Digest,
    size: u64,
    capabilities: Vec<Capability>,
    imports: Vec<String>,
    files: Vec<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    path: String,
    digest: Digest,
    size: u64,
}

pub(crate) fn run(arguments: &Inspect) -> Result<String, Failure> {
    let report = report(&arguments.file).map_err(|failure| failure.in_file(&arguments.file))?;
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(text(&report))
}

fn report(file: &Path) -> Result<Report, Failure> {
    let image = UnverifiedImage::open_file(file)?;
    let claimed = image.claimed_signers()?;
    let image = image.without_signature()?;
    let packages =
        image.config().packages.iter().map(|(name, package)| report_package(&image, name, package));
    Ok(Report {
        app: image.config().app.to_string(),
        version: image.config().version.to_string(),
        digest: image.manifest_digest(),
        state_schema: image.config().state_schema,
        migrates_from: image.config().migrates_from,
        size: image.blobs().iter().map(|blob| blob.size).sum(),
        claimed_signers: claimed.into_iter().map(|key| key.map(|key| key.to_string())).collect(),
        packages: packages.collect::<Result<_, _>>()?,
    })
}

fn report_package(
    image: &Image,
    name: &PackageName,
    package: &PackageConfig,
) -> Result<PackageReport, Failure> {
    let component = image.component(name)?;
    let files = package.files.iter().map(|(path, file)| FileReport {
        path: path.clone(),
        digest: file.digest,
        size: file.size,
    });
    Ok(PackageReport {
        name: name.clone(),
        component: package.component,
        size: component.len() as u64,
        capabilities: package.capabilities.clone(),
        imports: imports_of(&component).map_err(|error| {
            Failure::new(format!("the component of package {name} cannot be read: {error}"))
        })?,
        files: files.collect(),
    })
}

fn text(report: &Report) -> String {
    let mut lines = vec![
        format!("{} {}", report.app, report.version),
        format!("├ digest        {}", report.digest),
        format!("├ size          {}", size_text(report.size)),
        match report.migrates_from {
            None => format!("├ state schema  {}", report.state_schema),
            Some(from) => format!("├ state schema  {}, migrates from {from} on", report.state_schema),
        },
    ];
    if report.claimed_signers.is_empty() {
        lines.push("├ signatures    none".to_owned());
    }
    for (number, key) in report.claimed_signers.iter().enumerate() {
        let label = if number == 0 { "signatures    claimed by key" } else { "              claimed by key" };
        lines.push(format!("├ {label} {}", key.as_deref().unwrap_or("(not named)")));
    }
    let last = report.packages.len().saturating_sub(1);
    for (number, package) in report.packages.iter().enumerate() {
        let (branch, stem) = if number == last { ("└", " ") } else { ("├", "│") };
        lines.push(format!("{branch} package {}", package.name));
        lines.extend(package_lines(package).into_iter().map(|line| format!("{stem}   {line}")));
    }
    lines.join("\n") + "\n"
}

fn package_lines(package: &PackageReport) -> Vec<String> {
    let capabilities: Vec<_> = package.capabilities.iter().map(ToString::to_string).collect();
    let capabilities = if capabilities.is_empty() { "none".to_owned() } else { capabilities.join(", ") };
    let mut lines = vec![
        format!("├ component     {} ({})", package.component, size_text(package.size)),
        format!("├ capabilities  {capabilities}"),
    ];
    let mut groups = vec![("imports", package.imports.clone())];
    if !package.files.is_empty() {
        let files = package.files.iter();
        groups.push(("files", files.map(|f| format!("{} ({})", f.path, size_text(f.size))).collect()));
    }
    let last = groups.len() - 1;
    for (number, (label, entries)) in groups.into_iter().enumerate() {
        let (branch, stem) = if number == last { ("└", " ") } else { ("├", "│") };
        lines.push(format!("{branch} {label}{}", if entries.is_empty() { "       none" } else { "" }));
        lines.extend(entries.into_iter().map(|entry| format!("{stem}   {entry}")));
    }
    lines
}
