//! `hvm plan`: what deploying a file would do, without doing it. Also the reading of a deployment file,
//! which `deploy` shares.

use std::path::Path;

use hvm_api::v1;
use hvm_types::deployment_file::Format;
use hvm_types::{DeploymentSpec, ImageRef, deployment_file};
use serde_json::json;

use crate::cli::PlanArgs;
use crate::client::Control;
use crate::failure::Failure;
use crate::image_upload;
use crate::out;
use crate::table;

/// Reads and checks the file, sends its image where it names one, and returns what it declares with the
/// request that declares it.
///
/// The file is checked here too, so that a mistake in it costs no upload.
pub(crate) async fn prepare(
    control: &mut Control,
    path: &Path,
) -> Result<(DeploymentSpec, v1::DeployRequest), Failure> {
    let file_name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("can't read {file_name}: {error}")))?;
    let spec = deployment_file::parse(&text, Format::of_file_name(&file_name)).map_err(|errors| {
        Failure::in_file(errors.iter().map(|error| error.in_file(&file_name).to_string()).collect(), &text)
    })?;
    let image = match &spec.image {
        ImageRef::Digest(_, digest) => *digest,
        ImageRef::File(name) => {
            let beside = path.parent().unwrap_or(Path::new(".")).join(name);
            if !beside.exists() {
                return Err(Failure::new(format!(
                    "{file_name}: image: there is no file {}",
                    beside.display()
                ))
                .hint("make it with `appimage-tool pack`, and sign it with `appimage-tool sign`"));
            }
            image_upload::push(control, &beside).await?
        }
    };
    Ok((spec, v1::DeployRequest { file_name, text, image: image.to_string() }))
}

/// Runs `hvm plan`.
pub(crate) async fn plan(args: PlanArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.list.api).await?;
    let (_, request) = prepare(&mut control, &args.file).await?;
    let text = request.text.clone();
    let response = control.client.plan(request).await;
    let plan = response.map_err(|status| control.failure(&status).with_source(&text))?.into_inner();
    if args.list.json {
        return table::print_json(&as_json(&plan));
    }
    out::line(format!("generation {}", plan.generation));
    let mut rights = table::table(&["package", "capability", "image asks", "file grants", "effective"]);
    for line in &plan.capabilities {
        let word = |yes: bool| if yes { "yes" } else { "no" };
        rights.add_row([
            line.package.as_str(),
            line.capability.as_str(),
            word(line.requested),
            word(line.granted),
            word(line.requested && line.granted),
        ]);
    }
    table::print(&rights, "the image asks for no capability");
    out::line("");
    let mut steps = table::table(&["step", "group", "copies", "host", "why"]);
    for line in &plan.lines {
        let copies = line.replicas.to_string();
        steps.add_row([line.kind.as_str(), &line.group, &copies, &line.host, &line.reason]);
    }
    table::print(&steps, "nothing to do: what runs is what the file says");
    Ok(())
}

fn as_json(plan: &v1::PlanResponse) -> serde_json::Value {
    let capabilities = plan.capabilities.iter().map(|line| {
        json!({
            "package": line.package, "capability": line.capability, "requested": line.requested,
            "granted": line.granted, "effective": line.requested && line.granted,
        })
    });
    let steps = plan.lines.iter().map(|line| {
        json!({
            "step": line.kind, "group": line.group, "copies": line.replicas, "host": line.host,
            "reason": line.reason,
        })
    });
    json!({
        "generation": plan.generation,
        "capabilities": capabilities.collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
    })
}
