//! `hvm image`: sends images and lists them.

use serde_json::json;

use crate::cli::{ImageCommand, ListArgs};
use crate::client::Control;
use crate::failure::Failure;
use crate::image_upload;
use crate::out;
use crate::table;

/// Runs `hvm image …`.
pub(crate) async fn image(command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Push { file, api } => {
            let mut control = Control::connect(&api).await?;
            let digest = image_upload::push(&mut control, &file).await?;
            out::line(digest);
            Ok(())
        }
        ImageCommand::Ls(args) => list(&args).await,
    }
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let mut control = Control::connect(&args.api).await?;
    let response = control.client.list_images(hvm_api::v1::ListImagesRequest {}).await;
    let images = response.map_err(|status| control.failure(&status))?.into_inner().images;
    let size = |image: &hvm_api::v1::Image| image.blobs.iter().map(|blob| blob.size).sum::<u64>();
    if args.json {
        let rows = images.iter().map(|image| {
            json!({
                "app": image.app, "version": image.version, "manifest": image.manifest, "bytes": size(image),
            })
        });
        return table::print_json(&rows.collect::<Vec<_>>());
    }
    let mut rows = table::table(&["app", "version", "size", "image"]);
    for image in &images {
        rows.add_row([&image.app, &image.version, &table::bytes(size(image)), &image.manifest]);
    }
    table::print(&rows, "no images: `hvm image push FILE.aimg` or `hvm deploy` sends one");
    Ok(())
}
