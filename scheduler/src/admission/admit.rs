//! A request to the document that Deploy writes, or to every reason why not.

use std::collections::BTreeSet;

use hvm_api::{ErrorKind, Failure, v1};
use hvm_types::deployment_file::{self, Format, SpecError};
use hvm_types::{DeploymentName, DeploymentSpec, Digest, Generation, ImageRef};

use super::checks;
use crate::core::Core;
use crate::documents::{Accepted, DeploymentDocument, StoredImage, Versioned, World, decode, encode, key};
use crate::failure::IntoFailure as _;
use crate::store::{MAX_TRANSACTION_BYTES, Revision};

/// A deployment that may be written.
pub(crate) struct Admitted {
    pub(crate) document: DeploymentDocument,
    /// The revision that the stored document has now.
    pub(crate) known: Option<Revision>,
    /// Whether it differs from what is stored.
    pub(crate) changed: bool,
    pub(crate) image: StoredImage,
}

impl Admitted {
    pub(crate) const fn name(&self) -> &DeploymentName {
        &self.document.current.spec.deployment
    }
}

/// Decides over a request, given the documents as they are.
pub(crate) async fn admit(
    core: &Core,
    world: &World,
    request: &v1::DeployRequest,
) -> Result<Admitted, Failure> {
    let format = Format::of_file_name(&request.file_name);
    let failure = |errors: Vec<SpecError>| Failure {
        kind: ErrorKind::Invalid,
        lines: errors.iter().map(|error| error.in_file(&request.file_name)).collect(),
    };
    let spec = deployment_file::parse(&request.text, format).map_err(failure)?;
    let refuse = |mut errors: Vec<SpecError>| {
        deployment_file::locate(&request.text, format, &mut errors);
        errors.sort_by(|a, b| a.place.cmp(&b.place));
        failure(errors)
    };
    let digest = image_digest(&spec, &request.image).map_err(|error| refuse(vec![error]))?;
    let image = stored_image(core, digest)
        .await?
        .ok_or_else(|| refuse(vec![checks::unknown_image(&spec, digest)]))?;

    let old = world.deployments.get(&spec.deployment);
    let document = old.map(|known| &*known.value);
    if document.and_then(|document| document.stop).is_some_and(|stop| stop.purge) {
        let line = format!(
            "deployment {} is being stopped and its state deleted; deploy it once `hvm status` no longer \
             shows it",
            spec.deployment
        );
        return Err(Failure::new(ErrorKind::Conflict, line));
    }
    let mut errors = checks::against_image(&spec, &image);
    if let Some(document) = document {
        errors.extend(deployment_file::change_allowed(&document.current.spec, &spec));
    }
    errors.extend(checks::against_stored(&spec, &image, document, world, &core.observations.all()));
    errors.extend(checks::against_neighbours(&spec, world));
    if !errors.is_empty() {
        return Err(refuse(errors));
    }
    Ok(admitted(spec, digest, image, old, world))
}

fn admitted(
    spec: DeploymentSpec,
    digest: Digest,
    image: StoredImage,
    old: Option<&Versioned<DeploymentDocument>>,
    world: &World,
) -> Admitted {
    let known = old.map(|known| known.revision);
    if let Some(document) = old.map(|known| &known.value)
        && document.stop.is_none()
        && document.current.image == digest
        && same_but_for_image_ref(&document.current.spec, &spec)
    {
        return Admitted { document: (**document).clone(), known, changed: false, image };
    }
    let stopped = world.ownership.iter().filter(|(key, _)| key.deployment == spec.deployment);
    let newest = stopped.map(|(_, ownership)| ownership.value.generation);
    let newest = newest.chain(old.map(|known| known.value.current.generation)).max().unwrap_or_default();
    let current = Accepted {
        generation: newest.next(),
        image: digest,
        app: image.config.app.clone(),
        version: image.config.version.clone(),
        state_schema: image.config.state_schema,
        spec,
    };
    let earlier = old.map_or_else(Vec::new, |known| earlier(&known.value, world));
    let mut document = DeploymentDocument { current, earlier, stop: None };
    while document.earlier.len() > 1 && encode(&document).len() > MAX_TRANSACTION_BYTES / 2 {
        document.earlier.pop();
    }
    Admitted { document, known, changed: true, image }
}

/// Where the image comes from does not change what runs.
fn same_but_for_image_ref(a: &DeploymentSpec, b: &DeploymentSpec) -> bool {
    a.deployment == b.deployment && a.jobs == b.jobs && a.routes == b.routes
}

/// The changes to keep beside a new one: the last, and what hosts are still assigned.
fn earlier(old: &DeploymentDocument, world: &World) -> Vec<Accepted> {
    let mut in_use: BTreeSet<Generation> = [old.current.generation].into();
    for assignments in world.hosts.values().filter_map(|host| host.assignments.as_ref()) {
        let groups = assignments.value.groups.iter();
        for (_, replicas) in groups.filter(|(key, _)| key.deployment == old.current.spec.deployment) {
            in_use.extend(replicas.values().map(|ownership| ownership.generation));
        }
    }
    let all = std::iter::once(&old.current).chain(&old.earlier);
    let kept = all.filter(|accepted| in_use.contains(&accepted.generation));
    kept.take(DeploymentDocument::MAX_EARLIER).cloned().collect()
}

fn image_digest(spec: &DeploymentSpec, sent: &str) -> Result<Digest, SpecError> {
    let sent = match sent {
        "" => None,
        text => Some(text.parse::<Digest>().map_err(|error| checks::image_error(error.to_string()))?),
    };
    match (&spec.image, sent) {
        (ImageRef::Digest(_, named), Some(sent)) if *named != sent => {
            Err(checks::image_error(format!("it names {named}, and {sent} was sent")))
        }
        (ImageRef::Digest(_, named), _) => Ok(*named),
        (ImageRef::File(_), Some(sent)) => Ok(sent),
        (ImageRef::File(file), None) => Err(checks::image_error(format!("`{file}` was not sent"))),
    }
}

/// An image of the scheduler's store.
pub(crate) async fn stored_image(core: &Core, manifest: Digest) -> Result<Option<StoredImage>, Failure> {
    let key = key::image(manifest);
    let Some(entry) = core.store.get(&key).await.map_err(|error| error.into_failure())? else {
        return Ok(None);
    };
    decode(&key, &entry.value).map(Some).map_err(|error| error.into_failure())
}
